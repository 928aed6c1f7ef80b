"""Fixtures of tests of what the system allows a process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.core.system import cgroups


@pytest.fixture
def in_cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    """Puts this process into a cgroup of these files, in name only. ``../x`` is a file of the cgroup above it."""

    def enter(files: dict[str, str]) -> None:
        folder = tmp_path / "above" / "here"
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / name).write_text(text)
        monkeypatch.setattr(cgroups, "folders", lambda controller: [folder, folder.parent])

    return enter
