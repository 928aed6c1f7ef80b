"""The pin of an export: its name, its end, and datasets that cannot be written."""

from __future__ import annotations

import datetime
from pathlib import Path

import fsspec
import pytest

from pipeline import export
from pipeline.core.errors import ConfigError, TesseraError
from pipeline.dataset import maintenance
from pipeline.dataset.commit import pins
from pipeline.export import pinning
from pipeline.export.pinning import SnapshotPin
from tests.export import exported
from tests.support.dataset_fixtures import RUNS, night


@pytest.fixture
def root(tmp_path: Path) -> str:
    night(tmp_path / "v1", RUNS[1], ["a"])
    night(tmp_path / "v1", RUNS[2], ["b"])
    return str(tmp_path / "v1")


def test_each_has_a_name_of_its_own_and_removes_only_its_own(root: str) -> None:
    maintenance.pin(root.removesuffix("/v1"), "training", 1)
    with SnapshotPin(root, 1) as first, SnapshotPin(root, 1) as second:
        names = {one.name for one in pins.pins(root)[0]}
        assert names == {"training", first.name, second.name}
        assert len(names) == 3
    assert [one.name for one in pins.pins(root)[0]] == ["training"]


def test_it_ends_by_itself_if_the_process_is_killed(root: str) -> None:
    pin = SnapshotPin(root, 1).__enter__()
    (stored,) = pins.pins(root)[0]
    until = datetime.datetime.fromisoformat(stored.until or "")
    assert datetime.timedelta(hours=23) < until - datetime.datetime.now(datetime.UTC) <= datetime.timedelta(days=1)
    pin.__exit__(None, None, None)


def test_it_is_removed_after_an_error(root: str) -> None:
    with pytest.raises(KeyboardInterrupt), SnapshotPin(root, 1):
        raise KeyboardInterrupt
    assert pins.pins(root)[0] == []


def test_it_is_prolonged(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with SnapshotPin(root, 1) as pin:
        before = pins.pins(root)[0][0].until
        pin.renew()
        assert pins.pins(root)[0][0].until == before
        monkeypatch.setattr(pinning, "_RENEWED_EVERY_S", -1.0)
        monkeypatch.setattr(pinning, "_KEPT", datetime.timedelta(days=2))
        pin.renew()
        (after,) = pins.pins(root)[0]
        assert after.name == pin.name
        assert (after.until or "") > (before or "")


def test_an_export_prolongs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, ends = exported.write(tmp_path / "ds", 40), []
    monkeypatch.setattr(pinning, "_RENEWED_EVERY_S", -1.0)
    days = iter(range(1, 100))

    def report(line: str) -> None:
        ends.append(pins.pins(f"{path}/v1")[0][0].until)
        monkeypatch.setattr(pinning, "_KEPT", datetime.timedelta(days=next(days)))

    export.export_dataset(path, str(tmp_path / "out"), "lance", report=report)
    assert len(ends) > 3
    assert ends[2] > ends[1]


def test_a_pin_that_somebody_removed_is_no_error(root: str) -> None:
    with SnapshotPin(root, 1) as pin:
        pins.unpin(root, pin.name)


def test_a_snapshot_that_goes(root: str) -> None:
    with pytest.raises(ConfigError, match="--snapshot: there is no snapshot 9"), SnapshotPin(root, 9):
        pass
    pins.mark_deleting(pins.DatasetFolder(root), 1, although_pinned=False)
    with pytest.raises(TesseraError, match="is being deleted by `tessera vacuum`"), SnapshotPin(root, 1):
        pass


def test_a_dataset_that_cannot_be_written_is_exported_without_a_pin(tmp_path: Path, server: str) -> None:
    path = exported.write(tmp_path / "ds", 20)
    done = export.export_dataset(f"{server}/ds", str(tmp_path / "out"), "datasets")
    assert exported.read_datasets(str(tmp_path / "out")) == exported.stored(path)
    assert not done.pinned
    assert done.warnings[0].startswith("snapshot 1 is not pinned, so that a vacuum at the same time may end the export")
    assert not (tmp_path / "ds" / "v1" / "_pins").exists()


def test_nor_does_a_file_system_that_only_reads_need_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fs, path = fsspec.filesystem("memory"), exported.write(tmp_path / "ds", 20)
    fs.put(path, "/pinning", recursive=True)

    def refuse(*args: object, **options: object) -> None:
        raise NotImplementedError

    with monkeypatch.context() as patch:
        patch.setattr(type(fs), "pipe_file", refuse)
        done = export.export_dataset("memory://pinning", str(tmp_path / "out"), "lance")
    assert (done.pinned, len(done.warnings)) == (False, 1)
    assert exported.read_lance(str(tmp_path / "out")) == exported.stored(path)
    fs.rm("/pinning", recursive=True)
