"""Pins a snapshot while an export reads it, so that `vacuum` keeps its files."""

from __future__ import annotations

import contextlib
import datetime
import secrets
import time

from pipeline.core.errors import ConfigError, StorageError, TesseraError
from pipeline.dataset.commit import pins

_KEPT = datetime.timedelta(days=1)
"""How long a pin holds if its process is killed."""
_RENEWED_EVERY_S = 3600.0


class SnapshotPin:
    """A context manager: pins a snapshot under a name of its own, and removes the pin at the end.

    If the process is killed the pin ends by itself after a day. If the dataset cannot be written, nothing is pinned,
    and ``warning`` says so.

    Args:
        root: the version's folder.
        number: of the snapshot.

    Raises:
        ConfigError: there is no such snapshot, or it has samples that were forgotten since.
        TesseraError: `vacuum` deletes the snapshot at the same time.
    """

    def __init__(self, root: str, number: int) -> None:
        self.root, self.number = root, number
        self.name = f"export-{secrets.token_hex(8)}"
        self.is_pinned = False
        self.warning: str | None = None
        self._pinned_s = 0.0

    def __enter__(self) -> SnapshotPin:
        self._pin()
        return self

    def renew(self) -> None:
        """Prolongs the pin if that is due. An export calls it before each batch."""
        if self.is_pinned and time.monotonic() - self._pinned_s > _RENEWED_EVERY_S:
            self._pin()

    def _pin(self) -> None:
        until = datetime.datetime.now(datetime.UTC).replace(microsecond=0) + _KEPT
        try:
            pins.pin(self.root, self.name, self.number, until)
        except ConfigError as error:
            raise ConfigError("--snapshot", error.found, error.allowed) from error
        except (StorageError, NotImplementedError) as error:  # fsspec: a file system that cannot write
            self.warning = (
                f"snapshot {self.number} is not pinned, so that a vacuum at the same time may end the export ({error})"
            )
        else:
            self.is_pinned = True
        self._pinned_s = time.monotonic()

    def __exit__(self, *error: object) -> None:
        if self.is_pinned:
            with contextlib.suppress(TesseraError):  # it ends by itself
                pins.unpin(self.root, self.name)
