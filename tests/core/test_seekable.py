"""A file that keeps its own position."""

from __future__ import annotations

import io

import pytest

from pipeline.core.seekable import Seekable


def test_where_it_is_read_next() -> None:
    file = Seekable(10)
    assert file.seekable()
    assert file.readable()
    assert [file.seek(4), file.seek(2, io.SEEK_CUR), file.seek(-1, io.SEEK_END)] == [4, 6, 9]
    assert file.tell() == 9
    with pytest.raises(ValueError, match="seek to -1"):
        file.seek(-1)
    assert file.tell() == 9


def test_how_much_is_read() -> None:
    file = Seekable(10)
    file.seek(7)
    assert [file.wanted(2), file.wanted(5), file.wanted(-1), file.wanted(None)] == [2, 3, 3, 3]
    file.seek(12)
    assert file.wanted(5) == 0
    unknown = Seekable(None)
    assert [unknown.wanted(5), unknown.wanted(-1), unknown.wanted(None)] == [5, -1, -1]
