"""Pins: what vacuum leaves, what it removes, and what is no pin."""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path
from typing import Any

import pytest

from pipeline import dataset
from pipeline.core.errors import ConfigError, StorageError
from pipeline.dataset import maintenance
from pipeline.dataset.commit import pins, snapshots
from pipeline.dataset.commit.transaction import Transaction
from tests.support.dataset_fixtures import RUNS, ids, night

ROWS = {1: ["a", "b"], 2: ["b", "c"], 3: ["b", "c", "d"]}
"""Snapshot -> its rows: 2 replaces the file of 1, so that only snapshot 1 names that file."""


def make(root: str) -> None:
    night(root, RUNS[1], ["a", "b"])
    night(root, RUNS[2], ["b", "c"], drops={f"data/{RUNS[1]}-000000-000.parquet": [0, 1]})
    night(root, RUNS[3], ["d"])


@pytest.fixture
def out(tmp_path: Path) -> str:
    make(str(tmp_path / "out" / "v1"))
    return str(tmp_path / "out")


def listed(out: str) -> dict[str, int]:
    return {one.name: one.snapshot for one in pins.pins(f"{out}/v1")[0]}


def test_a_pinned_snapshot_outlives_vacuum_until_it_is_unpinned(out: str) -> None:
    assert maintenance.pin(out, "training", at=1).snapshot == 1
    assert maintenance.pin(out, "nightly.2-b_x").snapshot == 3, "the newest"
    opened = dataset.open(out, snapshot="training")
    (done,) = maintenance.vacuum(out, 0)
    assert sorted(snapshots.numbers(f"{out}/v1")) == [1, 3, 4], "2 is not pinned"
    maintenance.vacuum(out, 0)
    assert sorted(snapshots.numbers(f"{out}/v1")) == [1, 3, 4], "nothing to delete, nothing to commit"
    assert (done.pins_removed, done.pins_expired, done.pins_unreadable) == ((), (), ())
    assert ids(out, snapshot="training") == ids(out, snapshot=1) == ROWS[1]
    assert sorted(opened.to_arrow(["sample_id"])["sample_id"].to_pylist()) == ROWS[1]
    assert ids(f"{out}/v1", snapshot="nightly.2-b_x") == ROWS[3]
    maintenance.unpin(out, "training")
    assert listed(out) == {"nightly.2-b_x": 3}
    (done,) = maintenance.vacuum(out, 0)
    assert done.removed == 1, "the file that only snapshot 1 names"
    assert 1 not in snapshots.numbers(f"{out}/v1")
    assert ids(out) == ROWS[3]


def test_a_pin_ends_on_its_date(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, until in ((1, "2100-01-31"), (2, "2100-02-01T00:30+01:00")):
        maintenance.pin(out, f"p{number}", at=number, until=until)
    assert [one.until for one in pins.pins(f"{out}/v1")[0]] == [
        "2100-01-31T23:59:59+00:00",
        "2100-01-31T23:30:00+00:00",
    ]
    maintenance.vacuum(out, 0)
    assert {1, 2} <= set(snapshots.numbers(f"{out}/v1"))
    expire(out, 2)
    assert ids(out, snapshot="p2") == ROWS[2], "until a vacuum"
    (done,) = maintenance.vacuum(out, 0)
    assert (done.pins_expired, done.pins_removed) == (("p2",), ())
    assert 2 not in snapshots.numbers(f"{out}/v1")
    with pytest.raises(ConfigError, match=r"snapshot: there is no pin 'p2' in .*; one of: p1$"):
        dataset.open(out, snapshot="p2")
    maintenance.pin(out, "p1", at=1, until="2100-05-01")
    assert [(one.name, one.until) for one in pins.pins(f"{out}/v1")[0]] == [("p1", "2100-05-01T23:59:59+00:00")]


def expire(out: str, number: int) -> None:
    """Moves the end of the pins of a snapshot into the past, as if time had passed."""
    (path,) = Path(out, "v1", "_pins").glob(f"{number:08d}.*.json")
    values = json.loads(path.read_text())
    for one in values["pins"]:
        one["until"] = "2020-01-01T00:00:00+00:00"
    path.write_text(json.dumps(values))


def test_vacuum_removes_expired_pins_of_snapshots_that_stay(out: str) -> None:
    maintenance.pin(out, "old", at=3, until="2100-01-01")
    maintenance.pin(out, "kept", at=3)
    expire(out, 3)
    maintenance.pin(out, "kept", at=3)  # without the date that `expire` gave it
    (done,) = maintenance.vacuum(out, maintenance.seconds("7d"))
    assert (done.pins_expired, done.snapshot) == (("old",), 3), "and commits nothing for it"
    assert listed(out) == {"kept": 3}


def test_a_name_whose_pin_has_expired_can_be_given_again(out: str) -> None:
    maintenance.pin(out, "p", at=1, until="2100-01-01")
    expire(out, 1)
    maintenance.pin(out, "p", at=3)
    assert listed(out) == {"p": 3}
    assert ids(out, snapshot="p") == ROWS[3]


def test_forgotten_samples_go_although_their_snapshot_is_pinned(out: str) -> None:
    maintenance.pin(out, "training", at=1)
    maintenance.pin(out, "later", at=3)
    maintenance.forget(out, ["c"])
    assert ids(out, snapshot="later") == ROWS[3], "until the vacuum"
    with pytest.raises(ConfigError, match=r"--at: snapshot 2 holds samples that were forgotten since, .*vacuum"):
        maintenance.pin(out, "another", at=2)
    (done,) = maintenance.vacuum(out, maintenance.seconds("7d"))
    assert sorted(done.pins_removed) == ["later", "training"]
    assert done.pins_expired == ()
    assert list(snapshots.numbers(f"{out}/v1")) == [4, 5]
    assert listed(out) == {}
    assert os.listdir(f"{out}/v1/_pins") == []


def test_a_pin_needs_no_lease(out: str) -> None:
    """An extraction may go on for hours."""
    with Transaction(f"{out}/v1", "extract", RUNS[5]):
        maintenance.pin(out, "training", at=2)
        assert ids(out, snapshot="training") == ROWS[2]
        maintenance.unpin(out, "training")


def test_what_is_no_pin(out: str) -> None:
    for name in ("", "1", "12a", "-x", "_x", ".x", "a/b", "../x", "a b", "é", "a\n", "x" * 65, "a\0"):
        with pytest.raises(ConfigError, match=r"--pin: found .*a letter, then at most 63"):
            maintenance.pin(out, name)
    for until in ("2020-01-01", "2020-01-01T00:00:00Z"):
        with pytest.raises(ConfigError, match=r"--until: '2020-01-01.*' is in the past"):
            maintenance.pin(out, "x", until=until)
    for until in ("tomorrow", "2100-13-01", "20991231", "2099-W01-1", "9999-12-31T23:59:59-14:00", "", "٢٠٩٩-01-01"):
        with pytest.raises(ConfigError, match=r"--until: found .*; a date or a time in the future"):
            maintenance.pin(out, "x", until=until)
    with pytest.raises(ConfigError, match=r"--at: there is no snapshot 9 in .*; one of: 1, 2, 3"):
        maintenance.pin(out, "x", at=9)
    with pytest.raises(ConfigError, match=r"snapshot: there is no pin 'x' in .*give its number, or pin it"):
        dataset.open(out, snapshot="x")
    maintenance.pin(out, "x" * 64, at=1)
    maintenance.pin(out, "a", at=2)
    for refused in (lambda: dataset.open(out, snapshot="b"), lambda: maintenance.unpin(out, "b")):
        with pytest.raises(ConfigError, match=rf"there is no pin 'b' in .*; one of: a, {'x' * 64}"):
            refused()
    with pytest.raises(ConfigError, match=r"--pin: 'a' pins snapshot 2; another name, or --unpin a first"):
        maintenance.pin(out, "a", at=3)
    assert listed(out) == {"a": 2, "x" * 64: 1}
    with pytest.raises(ConfigError, match="there is no version 'v9'"):
        maintenance.pin(out, "x", version="v9")


def test_versions_have_pins_of_their_own(tmp_path: Path) -> None:
    for version, name in (("v1", "a"), ("v2", "b")):
        night(tmp_path / version, RUNS[1], [name])
        maintenance.pin(str(tmp_path), "p", version=version)
    assert [ids(tmp_path, version=version, snapshot="p") for version in ("v1", "v2")] == [["a"], ["b"]]


def test_a_snapshot_that_has_gone(out: str) -> None:
    """As a vacuum of an earlier Tessera, which knows no pins, deletes it."""
    maintenance.pin(out, "training", at=1)
    snapshots.delete(f"{out}/v1", 1)
    with pytest.raises(ConfigError, match=r"pin 'training' names snapshot 1 of .*, which has gone; one of: 2, 3"):
        dataset.open(out, snapshot="training")
    (done,) = maintenance.vacuum(out, maintenance.seconds("7d"))
    assert done.pins_removed == ("training",)
    assert os.listdir(f"{out}/v1/_pins") == []
    maintenance.pin(out, "training", at=2)


def test_pins_on_s3(s3: Any) -> None:
    out = "s3://corpus/out"
    make(f"{out}/v1")
    maintenance.pin(out, "training", at=1, until="2100-01-01")
    maintenance.vacuum(out, 0)
    maintenance.vacuum(out, 0)
    assert ids(out, snapshot="training") == ROWS[1]
    assert 2 not in snapshots.numbers(f"{out}/v1")
    maintenance.unpin(out, "training")
    (done,) = maintenance.vacuum(out, 0)
    assert done.removed == 1
    assert 1 not in snapshots.numbers(f"{out}/v1")
    assert not [path for path in s3.find("corpus/out/v1/_pins") if "/00000001." in path]


def test_numbers_of_pins_are_limited(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    for number in range(pins.MAX_PINS):
        pins.pin(f"{out}/v1", f"p{number}", 1, until)
    with pytest.raises(ConfigError, match="snapshot 1 has 100 pins; at most 100"):
        maintenance.pin(out, "one-more", at=1)
    monkeypatch.setattr(pins, "MAX_SNAPSHOTS", 1)
    with pytest.raises(ConfigError, match=r"1 snapshots of .* were pinned; run `tessera vacuum` first"):
        maintenance.pin(out, "one-more", at=2)


def test_a_pin_that_cannot_be_checked_leaves_the_former_one(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given another date, and the storage fails after that is written."""
    maintenance.pin(out, "training", at=1, until="2999-12-31")
    numbers, calls = snapshots.numbers, list[str]()

    def fails_later(root: str) -> dict[int, str]:
        calls.append(root)
        if len(calls) == 2:
            raise StorageError("no answer")
        return numbers(root)

    monkeypatch.setattr(snapshots, "numbers", fails_later)
    with pytest.raises(StorageError, match="no answer"):
        pins.pin(f"{out}/v1", "training", 1)
    monkeypatch.undo()
    assert listed(out) == {"training": 1}
    maintenance.vacuum(out, 0)
    assert ids(out, snapshot="training") == ROWS[1]
