"""Pins, vacuums and other pins at the same time: each pin holds or fails."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pytest

from pipeline.core.errors import TesseraError
from pipeline.dataset import maintenance
from pipeline.dataset.commit import snapshots
from pipeline.dataset.commit.folder import DatasetFolder
from pipeline.storage import publication
from tests.dataset.commit.test_pins import ROWS, listed, make, out
from tests.support.dataset_fixtures import ids

__all__ = ["out"]


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
