"""Pins: what vacuum leaves, what it removes, and that a pin and a vacuum never both succeed, however they meet."""

from __future__ import annotations

import datetime
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pytest

from pipeline import dataset
from pipeline.core.errors import ConfigError, TesseraError
from pipeline.dataset import maintenance
from pipeline.dataset.commit import pins, snapshots
from pipeline.dataset.commit.folder import DatasetFolder
from pipeline.dataset.commit.transaction import Transaction
from pipeline.storage import publication
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


# -- a pin and a vacuum at the same time -------------------------------------------------------------


@contextmanager
def interrupted(at: int, action: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Before access number ``at`` to the dataset, ``action`` runs to its end, as in another process. Yields a list
    whose length is the number of accesses."""
    seen, inside = list[int](), []

    def wrap(real: Callable[..., Any]) -> Callable[..., Any]:
        def access(*args: Any, **more: Any) -> Any:
            if not inside:
                seen.append(len(seen))
                if seen[-1] == at:
                    inside.append(True)
                    action()
                    inside.clear()
            return real(*args, **more)

        return access

    with monkeypatch.context() as patch:
        for name in ("list_files", "list_folders", "read", "publish", "publish_new", "remove", "move", "is_file"):
            patch.setattr(DatasetFolder, name, wrap(getattr(DatasetFolder, name)))
        yield seen


def copies(tmp_path: Path) -> Iterator[str]:
    """Datasets in memory, one after the other."""
    fs, source = fsspec.filesystem("memory"), str(tmp_path / "out")
    files = {str(path.relative_to(source)): path.read_bytes() for path in Path(source).rglob("*") if path.is_file()}
    number = 0
    while True:
        fs.store.clear()
        fs.pseudo_dirs[:] = [""]
        number += 1
        for name, content in files.items():
            fs.pipe_file(f"/c{number}/{name}", content)
        yield f"memory://c{number}"


@pytest.mark.parametrize("outer", ["vacuum", "pin"])
def test_a_pin_at_any_moment_of_a_vacuum_holds_or_fails(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outer: str
) -> None:
    """Each of the two is stopped before each of its accesses, and the other runs then."""
    results = set()
    for at, place in enumerate(copies(tmp_path)):
        errors: list[TesseraError] = []

        def pin(place: str = place, errors: list[TesseraError] = errors) -> None:
            try:
                maintenance.pin(place, "training", at=1)
            except TesseraError as error:
                errors.append(error)

        def vacuum(place: str = place) -> None:
            maintenance.vacuum(place, 0)

        with interrupted(at, pin if outer == "vacuum" else vacuum, monkeypatch) as seen:
            (vacuum if outer == "vacuum" else pin)()
        if len(seen) <= at:
            break
        results.add(bool(errors))
        if errors:
            assert "\n" not in str(errors[0])
            assert listed(place) == {}
            assert 1 not in snapshots.numbers(f"{place}/v1")
        else:
            assert listed(place) == {"training": 1}
            maintenance.vacuum(place, 0)
            assert ids(place, snapshot="training") == ROWS[1]
        assert ids(place) == ROWS[3]
    assert results == {True, False}
    assert at > 10


def test_two_pins_at_the_same_time(out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same snapshot both hold; of one name for two snapshots at most one."""
    for at, place in enumerate(copies(tmp_path)):
        with interrupted(at, lambda place=place: maintenance.pin(place, "b", at=1), monkeypatch) as seen:  # type: ignore[misc]
            maintenance.pin(place, "a", at=1)
        if len(seen) <= at:
            break
        assert listed(place) == {"a": 1, "b": 1}, at
    for at, place in enumerate(copies(tmp_path)):
        made = []

        def pin(number: int, place: str = place, made: list[int] = made) -> None:
            try:
                maintenance.pin(place, "a", at=number)
                made.append(number)
            except TesseraError:
                pass

        with interrupted(at, lambda pin=pin: pin(2), monkeypatch) as seen:  # type: ignore[misc]
            pin(1)
        if len(seen) <= at:
            break
        assert len(made) <= 1
        assert listed(place) == dict.fromkeys(["a"][: len(made)], *made)


def test_a_vacuum_that_was_killed_is_finished_by_the_next(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(snapshots, "delete", killed)
        with pytest.raises(KeyboardInterrupt):
            maintenance.vacuum(out, 0)
    with pytest.raises(TesseraError, match=r"snapshot 2 of .* is being deleted by `tessera vacuum`: pin a later one"):
        maintenance.pin(out, "training", at=2)
    maintenance.pin(out, "training", at=1)
    maintenance.vacuum(out, maintenance.seconds("7d"))
    assert 2 not in snapshots.numbers(f"{out}/v1"), "whatever its age: it cannot be pinned any more"
    assert ids(out, snapshot="training") == ROWS[1]


def test_many_pins_and_a_vacuum_at_the_same_time(tmp_path: Path) -> None:
    many_pins(str(tmp_path / "out"))


@pytest.mark.slow
def test_many_pins_and_a_vacuum_at_the_same_time_on_s3(s3: Any) -> None:
    many_pins("s3://corpus/out")


def many_pins(place: str) -> None:
    make(f"{place}/v1")
    made, errors = list[str](), list[str]()

    def pin(number: int) -> None:
        for attempt in range(4):
            name = f"p{number}-{attempt}"
            try:
                maintenance.pin(place, name, at=1 + number % 2)
                made.append(name)
            except TesseraError as error:
                errors.append(str(error))

    threads = [threading.Thread(target=pin, args=(number,)) for number in range(4)]
    threads.insert(2, threading.Thread(target=maintenance.vacuum, args=(place, 0)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    maintenance.vacuum(place, 0)
    assert listed(place).keys() == set(made)
    for name in made:
        assert ids(place, snapshot=name) == ROWS[listed(place)[name]]
    assert len(made) + len(errors) == 16


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


def test_an_outdated_change_is_not_lost_among_newer_ones(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The generation after the one that was read had been created, replaced and deleted meanwhile."""
    maintenance.pin(out, "first", at=1)
    real = DatasetFolder.publish_new

    def late(folder: DatasetFolder, path: str, data: bytes) -> bool:
        monkeypatch.setattr(DatasetFolder, "publish_new", real)
        for name in ("b", "c", "d"):
            maintenance.pin(out, name, at=1)
        return real(folder, path, data)

    monkeypatch.setattr(DatasetFolder, "publish_new", late)
    maintenance.pin(out, "a", at=1)
    assert listed(out) == dict.fromkeys(["first", "a", "b", "c", "d"], 1)
    assert len(os.listdir(f"{out}/v1/_pins")) == 1


def test_a_file_that_is_gone_before_an_object_store_can_compare_it(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its creation was refused; then others made two generations more, and removed it."""
    place, real, create = next(copies(tmp_path)), publication.read_bytes, publication._create_new

    def late(url: str, *more: Any) -> bytes:
        monkeypatch.setattr(publication, "read_bytes", real)
        for name in ("c", "d"):
            maintenance.pin(place, name, at=1)
        return real(url, *more)

    def creates(url: str, data: bytes) -> bool:
        monkeypatch.setattr(publication, "_create_new", create)
        maintenance.pin(place, "b", at=1)
        monkeypatch.setattr(publication, "read_bytes", late)
        return create(url, data)

    monkeypatch.setattr(publication, "_create_new", creates)
    maintenance.pin(place, "a", at=1)
    assert publication.read_bytes is real, "it came to that"
    assert listed(place) == dict.fromkeys("abcd", 1)


def test_numbers_of_pins_are_limited(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    for number in range(pins.MAX_PINS):
        pins.pin(f"{out}/v1", f"p{number}", 1, until)
    with pytest.raises(ConfigError, match="snapshot 1 has 100 pins; at most 100"):
        maintenance.pin(out, "one-more", at=1)
    monkeypatch.setattr(pins, "MAX_SNAPSHOTS", 1)
    with pytest.raises(ConfigError, match=r"1 snapshots of .* were pinned; run `tessera vacuum` first"):
        maintenance.pin(out, "one-more", at=2)
