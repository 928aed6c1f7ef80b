"""Errors of a file system at the place that a dataset lies in."""

from __future__ import annotations

from pipeline.core.errors import StorageError, TesseraError, describe
from pipeline.storage.retry import denied, full, of_storage
from pipeline.storage.urls import split


class _dataset_errors:
    """Turns what a file system raises at the dataset's own place into a ``StorageError`` of one line."""

    def __init__(self, doing: str, url: str, pass_missing: bool = False) -> None:
        self.doing, self.url, self.pass_missing = doing, url, pass_missing

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        passed = (FileNotFoundError, NotADirectoryError) if self.pass_missing else ()
        if error is None or isinstance(error, (TesseraError, *passed)):
            return
        if not isinstance(error, RecursionError) and not of_storage(error):  # folders in folders, thousands deep
            return
        why = "it is full" if full(error) else "access is denied" if denied(error) else "it failed"
        raise StorageError(f"cannot {self.doing} {self.url!r}: {why} ({describe(error)})") from error


def _below(url: str, root: str) -> tuple[str, str]:
    """The path of the local folder ``root``, and the rest of ``url``."""
    return split(root)[1], url.removeprefix(root.rstrip("/")).strip("/")
