"""What every source is: a corpus in, a listing of samples out. Nothing is opened but the listing itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pyarrow as pa

from pipeline.core.errors import ConfigError
from pipeline.storage.roots import AllowedRoots


class Source(Protocol):
    """A member of the family, built as ``Class(config)``. Runs on the driver."""

    refused_folders: list[str]
    """What the ids of samples begin with that were not listed, since their folder is a link that leads out of the
    root. Filled while `list` runs."""

    left_out: dict[str, int]
    """Files that were listed and cannot be samples: reason (``with '.' in their path``) -> how many. Filled while
    `list` runs."""

    def check(self, where: str) -> None:
        """Raises ``ConfigError``: unreachable path, unreadable manifest, missing columns."""
        ...

    def passthrough(self) -> pa.Schema:
        """Columns of the corpus that are copied to every row."""
        ...

    def allowed_roots(self) -> AllowedRoots:
        """Where the files of samples must lie. What a listing refuses, and what turns out elsewhere when it is opened,
        fails as ``forbidden``."""
        ...

    def lists(self, url: str) -> bool:
        """True if a file that appears at ``url`` would be listed as a sample."""
        ...

    def list(self) -> Iterator[pa.Table]:
        """Tables of schema ``LISTING`` + ``passthrough()``, ordered by sample_id within each. An id may stand there
        twice: who compares them all finds that out, and asks for `twice`."""
        ...

    def twice(self, sample_id: str) -> ConfigError:
        """The error that tells an id which stands there twice, and both places."""
        ...
