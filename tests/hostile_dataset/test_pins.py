"""Pins that no command writes: by the thousand, broken, links and pipes. Reading and vacuum go on."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline import dataset
from pipeline.dataset import describe_versions, maintenance
from pipeline.dataset.commit import snapshots
from tests.hostile_dataset.helpers import assert_reported, console, tree
from tests.support.dataset_fixtures import ids

pytestmark = pytest.mark.timeout(120)

GOOD: dict[str, Any] = {
    "snapshot": 1,
    "token": "0",
    "deleting": False,
    "pins": [{"name": "mine", "created": "2026-01-01T00:00:00+00:00", "until": None}],
}


def pinned(**changes: Any) -> str:
    return json.dumps({**GOOD, "pins": [{**GOOD["pins"][0], **changes}]})


def put(out: Path, text: str, name: str = "00000001.000001.json") -> Path:
    folder = out / "v1" / "_pins"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


BAD = {
    "no JSON": "{",
    "not UTF-8": "\udcff",
    "nested": "[" * 10_000,
    "an array": "[]",
    "nothing": "",
    "too large": json.dumps({**GOOD, "more": "x" * (1 << 16)}),
    "another snapshot": json.dumps({**GOOD, "snapshot": 2}),
    "no pins": json.dumps({**GOOD, "pins": None}),
    "too many pins": json.dumps({**GOOD, "pins": [{**GOOD["pins"][0], "name": f"p{i}"} for i in range(101)]}),
    "a name twice": json.dumps({**GOOD, "pins": GOOD["pins"] * 2}),
    "deleting": json.dumps({**GOOD, "deleting": "no"}),
    "a name with control characters": pinned(name="a\x1b[2J"),
    "a name that is a path": pinned(name="../../x"),
    "a long name": pinned(name="x" * 65),
    "no name": pinned(name=None),
    "a time without offset": pinned(until="2026-01-01T00:00:00"),
    "no time": pinned(until="soon"),
    "a long time": pinned(until="2" * 1000),
    "created never": pinned(created=None),
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
def test_a_broken_file_of_pins_breaks_nothing(out: Path, text: str) -> None:
    path = out / "v1" / "_pins" / "00000001.000001.json"
    path.parent.mkdir()
    path.write_bytes(text.encode(errors="surrogateescape"))
    assert ids(out) == ["a", "b", "c", "e"]
    assert ids(out, snapshot=1) == ["a", "b", "c", "d"]
    found = describe_versions.snapshots_document(str(out), None)
    assert found["pins_unreadable"] == [str(path)]
    describe_versions.show_snapshots(str(out), None, console())
    assert_reported(lambda: dataset.open(str(out), snapshot="mine"), "there is no pin 'mine'")
    assert_reported(lambda: maintenance.pin(str(out), "other", at=1), str(path), "remove it")
    maintenance.pin(str(out), "other", at=2)
    (done,) = maintenance.vacuum(str(out), 0)
    assert done.pins_unreadable == (str(path),)
    assert list(snapshots.numbers(str(out / "v1"))) == [1, 2, 4, 5], "what may be pinned is kept"
    assert ids(out, snapshot="other") == ["a", "b", "c", "d", "e"]
    maintenance.forget(str(out), ["a"])
    (done,) = maintenance.vacuum(str(out), 0)
    assert done.pins_unreadable == ()
    assert 1 not in snapshots.numbers(str(out / "v1"))


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_file(out: Path, tmp_path: Path, kind: str) -> None:
    path = out / "v1" / "_pins" / "00000001.000001.json"
    path.parent.mkdir()
    (tmp_path / "home" / "pin").write_text(json.dumps(GOOD))
    before = tree(tmp_path / "home")
    {"link": lambda: path.symlink_to(tmp_path / "home" / "pin"), "pipe": lambda: os.mkfifo(path), "folder": path.mkdir}[
        kind
    ]()
    assert_reported(lambda: dataset.open(str(out), snapshot="mine"), "there is no pin 'mine'")
    (done,) = maintenance.vacuum(str(out), 0)
    assert done.pins_unreadable == (() if kind == "folder" else (str(path),))
    maintenance.forget(str(out), ["a"])
    maintenance.vacuum(str(out), 0)
    assert 1 not in snapshots.numbers(str(out / "v1"))
    assert tree(tmp_path / "home") == before


@pytest.mark.parametrize("kind", ["link", "file"])
def test_the_folder_itself(out: Path, tmp_path: Path, kind: str) -> None:
    place = out / "v1" / "_pins"
    place.symlink_to(tmp_path / "home") if kind == "link" else place.write_text("")
    (tmp_path / "home" / "00000001.000001.json").write_text(json.dumps(GOOD))
    before = tree(tmp_path / "home")
    assert ids(out) == ["a", "b", "c", "e"]
    assert ids(out, snapshot=1) == ["a", "b", "c", "d"]
    assert describe_versions.snapshots_document(str(out), None)["pins_unreadable"] == [str(place)]
    for refused in (
        lambda: dataset.open(str(out), snapshot="mine"),
        lambda: maintenance.pin(str(out), "other"),
        lambda: maintenance.unpin(str(out), "mine"),
        lambda: maintenance.vacuum(str(out), 0),
    ):
        assert_reported(refused, str(place))
    assert tree(tmp_path / "home") == before
    assert list(snapshots.numbers(str(out / "v1"))) == [1, 2, 3, 4], "nothing is deleted or committed"


def test_pins_by_the_thousand(out: Path) -> None:
    """Most of them of snapshots that are not there, some of odd generations."""
    for number in range(2000, 7000):
        put(out, json.dumps({**GOOD, "snapshot": number}), f"{number:08d}.000001.json")
    for name in ("00000001.000000.json", "1.1.json", "00000001.0000001.json", "x"):
        put(out, json.dumps(GOOD), name)
    put(out, pinned(name="real"))
    started = time.monotonic()
    assert ids(out, snapshot="real") == ["a", "b", "c", "d"]
    maintenance.vacuum(str(out), 0)
    assert time.monotonic() - started < 60
    assert ids(out, snapshot="real") == ["a", "b", "c", "d"]
    assert not [name for name in os.listdir(out / "v1" / "_pins") if name.startswith("00002")]


@pytest.mark.parametrize("generation", [10**12, 10**15 - 1])
def test_a_generation_that_has_no_next_one(out: Path, generation: int) -> None:
    path = put(out, pinned(name="mine"), f"00000001.{generation}.json")
    put(out, pinned(name="mine"))
    assert_reported(lambda: dataset.open(str(out), snapshot="mine"), "there is no pin 'mine'")
    assert_reported(lambda: maintenance.pin(str(out), "other", at=1), str(path), "remove it")
    (done,) = maintenance.vacuum(str(out), 0)
    assert done.pins_unreadable == (str(path),)
    path.unlink()
    assert ids(out, snapshot="mine") == ["a", "b", "c", "d"]
    put(out, pinned(name="mine"), path.name)
    maintenance.forget(str(out), ["a"])
    maintenance.vacuum(str(out), 0)
    assert 1 not in snapshots.numbers(str(out / "v1"))
    assert os.listdir(path.parent) == []
