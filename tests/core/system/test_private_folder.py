"""Folders that no other user can enter, with unpredictable names, all of which are removed."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.core.system import private_folder
from tests.support import ROOT


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "place"


def _aged(folder: Path | str) -> Path:
    os.utime(folder, (0, 0))
    return Path(folder)


def test_only_this_user_may_enter_it(place: Path) -> None:
    before = os.umask(0)
    try:
        one, other = (Path(private_folder.make("x", str(place))) for _ in range(2))
    finally:
        os.umask(before)
    assert one != other
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in (one, other)} == {0o700}
    assert one.parent == place
    (one / "deep").mkdir()
    (one / "deep" / "file").touch()
    for folder in (one, other):
        private_folder.remove(str(folder))
    assert list(place.iterdir()) == []
    private_folder.remove(str(one))


def test_what_a_killed_process_left_is_removed_and_no_other(place: Path, tmp_path: Path) -> None:
    held, left = (
        subprocess.Popen(
            [sys.executable, "-m", "tests.core.system.programs.hold_private_folder", str(place)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    )
    folders = {}
    for process in (held, left):
        assert process.stdout is not None
        folders[process] = _aged(process.stdout.readline().strip())
    left.kill()
    left.wait()
    mine = _aged(private_folder.make("x", str(place)))
    assert not folders[left].exists()
    assert folders[held].exists()

    fresh = place / "tessera-x-fresh000"
    fresh.mkdir(mode=0o700)
    (tmp_path / "victim").mkdir(mode=0o700)
    (tmp_path / "victim" / "file").touch()
    _aged(tmp_path / "victim")
    (place / "tessera-x-link0000").symlink_to(tmp_path / "victim")
    shared = place / "tessera-x-shared00"
    shared.mkdir()
    shared.chmod(0o777)
    _aged(shared)
    (place / "tessera-x-file0000").touch()
    _aged(place / "tessera-x-file0000")
    of_another_kind = place / "tessera-y-00000000"
    of_another_kind.mkdir(mode=0o700)
    _aged(of_another_kind)
    private_folder.make("x", str(place))
    for kept in (fresh, tmp_path / "victim" / "file", shared, place / "tessera-x-file0000", of_another_kind, mine):
        assert kept.exists(), kept
    held.communicate(timeout=10)


def test_a_place_whose_name_is_too_long_for_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("t" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    for longest, parent in ((0, str(deep)), (10, "/tmp")):
        folder = private_folder.make("x", longest=longest)
        assert os.path.dirname(folder) == parent
        private_folder.remove(folder)


def test_a_place_that_cannot_be_written_is_an_error() -> None:
    with pytest.raises(OSError, match="proc"):
        private_folder.make("x", "/proc/nowhere")
