"""Converts errors of the file system that holds a dataset to ``StorageError``."""

from __future__ import annotations

from pipeline.core.errors import StorageError, TesseraError, describe
from pipeline.storage.retry import denied, full, of_storage
from pipeline.storage.urls import split


class dataset_errors:
    """Context manager that converts errors of a dataset's file system to a ``StorageError`` of one line.

    Args:
        doing: the verb of the message: ``cannot <doing> <url>``.
        pass_missing: ``FileNotFoundError`` and ``NotADirectoryError`` are not converted.
    """

    def __init__(self, doing: str, url: str, pass_missing: bool = False) -> None:
        self.doing, self.url, self.pass_missing = doing, url, pass_missing

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        passed = (FileNotFoundError, NotADirectoryError) if self.pass_missing else ()
        if error is None or isinstance(error, (TesseraError, *passed)):
            return
        if not isinstance(error, RecursionError) and not of_storage(error):  # thousands of nested folders
            return
        why = "it is full" if full(error) else "access is denied" if denied(error) else "it failed"
        raise StorageError(f"cannot {self.doing} {self.url!r}: {why} ({describe(error)})") from error


def split_at_root(url: str, root: str) -> tuple[str, str]:
    """Returns the path of the local folder ``root``, and the path of ``url`` relative to it."""
    return split(root)[1], url.removeprefix(root.rstrip("/")).strip("/")
