"""URLs that cannot be read or written are refused before a run."""

from __future__ import annotations

import os

import pytest

from pipeline import storage
from pipeline.core.errors import ConfigError


def test_check_readable(tmp_path) -> None:
    storage.check_readable(str(tmp_path), "source.path")
    with pytest.raises(ConfigError, match=r"source\.path: .*does not exist"):
        storage.check_readable(str(tmp_path / "no"), "source.path")
    with pytest.raises(ConfigError, match=r"source\.path: cannot reach"):
        storage.check_readable("nosuchscheme://x/y", "source.path")


def test_a_place_that_creates_a_file_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behaves like an object store that ignores If-None-Match."""
    from fsspec.implementations.memory import MemoryFileSystem

    storage.check_writable("memory://careful", "output.path")
    real = MemoryFileSystem.pipe_file
    monkeypatch.setattr(
        MemoryFileSystem, "pipe_file", lambda self, path, value, mode="overwrite": real(self, path, value)
    )
    with pytest.raises(ConfigError, match=r"output\.path: 'memory://careless' lets a second writer create a file"):
        storage.check_writable("memory://careless", "output.path")


def test_check_writable(tmp_path) -> None:
    storage.check_writable(str(tmp_path / "new" / "folder"), "output.path")
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").write_text("x")
    for place in (str(tmp_path / "file" / "below"), "/proc/nowhere", "nosuchscheme://x/y"):
        with pytest.raises(ConfigError, match=r"output\.path: cannot write to"):
            storage.check_writable(place, "output.path")
