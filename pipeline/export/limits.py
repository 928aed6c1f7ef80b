"""Limits of the files of an export, and errors of the libraries that write them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa

from pipeline.core.errors import ConfigError, StorageError, TesseraError, describe
from pipeline.storage.retry import full

SHARD_BYTES = 1 << 30
_OF_ROWS = re.compile(r"LanceError\((Schema|Arrow|InvalidInput|NotSupported|Not supported)")
"""Errors of Lance that are an ``OSError`` and come from the rows, not from a storage."""


@dataclass(frozen=True)
class ShardLimits:
    """When a file is closed and the next one begins."""

    rows: int | None = None
    """Largest number of rows in a file; None: any."""
    bytes: int = SHARD_BYTES
    """A file is closed once it holds this much, or is as large as its library estimates this."""

    def __post_init__(self) -> None:
        if self.rows is not None and self.rows < 1:
            raise ConfigError("--shard-rows", f"found {self.rows}", "at least 1")
        if self.bytes < 1:
            raise ConfigError("--shard-bytes", f"found {self.bytes}", "at least 1")


@contextmanager
def library_errors(name: str, out: str) -> Iterator[None]:
    """Context manager that converts errors of a library that writes to ``out``: to ``StorageError`` if the storage
    failed, otherwise to ``ConfigError``, as for a column that it cannot store."""
    try:
        yield
    except TesseraError:
        raise
    except (
        OSError,
        ValueError,
        TypeError,
        RuntimeError,
        NotImplementedError,
        OverflowError,
        pa.ArrowException,
    ) as error:
        if not isinstance(error, OSError) or _OF_ROWS.search(str(error)):
            raise ConfigError(
                "--format", f"{name} cannot store the rows ({describe(error)})", "other --columns, or another format"
            ) from error
        why = "it is full" if full(error) else "it failed"
        raise StorageError(f"cannot write {out!r}: {why} ({describe(error)})") from error
