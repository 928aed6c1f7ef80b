"""Errors of libraries become errors of Tessera."""

from __future__ import annotations

import errno

import pyarrow as pa
import pytest

from pipeline.core.errors import ConfigError, StorageError
from pipeline.export.limits import ShardLimits, library_errors


def test_errors_of_libraries() -> None:
    for error, kind, words in (
        (OSError(errno.ENOSPC, "No space left on device"), StorageError, "cannot write 'x': it is full"),
        (PermissionError(13, "denied"), StorageError, "cannot write 'x': it failed"),
        (ValueError("no\ntype s3://key:secret@host/x"), ConfigError, "L cannot store the rows"),
        (pa.ArrowNotImplementedError("cast"), ConfigError, "; other --columns, or another format"),
        (ConfigError("a", "b", "c"), ConfigError, "a: b; c"),
    ):
        with pytest.raises(kind) as caught, library_errors("L", "x"):
            raise error
        assert words in str(caught.value)
        assert str(caught.value).isprintable()
        assert "secret@" not in str(caught.value)
    with pytest.raises(KeyboardInterrupt), library_errors("L", "x"):
        raise KeyboardInterrupt


def test_limits_that_cannot_be() -> None:
    assert (ShardLimits().rows, ShardLimits().bytes) == (None, 1 << 30)
    with pytest.raises(ConfigError, match="--shard-rows: found -1; at least 1"):
        ShardLimits(-1)
    with pytest.raises(ConfigError, match="--shard-bytes: found 0; at least 1"):
        ShardLimits(bytes=0)
