"""Exports are read back by their libraries, and equal the rows of the snapshot."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline import dataset, export
from pipeline.core.errors import ConfigError
from pipeline.dataset import maintenance
from pipeline.dataset.commit import pins
from pipeline.export import FORMATS, ShardLimits
from tests.dataset.loading import written
from tests.export import exported
from tests.export.exported import READERS
from tests.support import ROOT
from tests.support.dataset_fixtures import RUNS, ids, night


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return exported.write(tmp_path_factory.mktemp("data") / "ds", deleted=exported.DELETED)


@pytest.mark.parametrize("format", FORMATS)
def test_every_value_of_every_row_that_is_not_deleted(path: str, tmp_path: Path, format: Any) -> None:
    out = str(tmp_path / "out")
    done = export.export_dataset(path, out, format)
    expected = exported.stored(path)
    assert len(expected) == 57 == done.rows
    assert [one["sample_id"] for one in expected][:3] == ["s00001", "s00002", "s00003"]
    assert READERS[format](out) == expected
    assert (done.snapshot, done.version, done.pinned, done.warnings) == (1, "v1", True, ())


@pytest.mark.parametrize("format", FORMATS)
def test_selected_columns_in_files_of_some_rows(path: str, tmp_path: Path, format: Any) -> None:
    out, columns = str(tmp_path / "out"), ["photo_tokens", "label", "photo_embedding"]
    done = export.export_dataset(path, out, format, ["photo_tokens, label", "photo_embedding"], limits=ShardLimits(25))
    assert READERS[format](out) == exported.stored(path, columns)
    assert list(done.columns) == columns == exported.record(out)["columns"]
    kinds = {"webdataset": "*.tar", "lance": "data/*.lance", "datasets": "*.arrow"}
    assert len(list(Path(out).glob(kinds[format]))) == 3


@pytest.mark.parametrize("format", FORMATS)
def test_files_of_some_bytes(path: str, tmp_path: Path, format: Any) -> None:
    kinds = {"webdataset": "*.tar", "lance": "data/*.lance", "datasets": "*.arrow"}
    export.export_dataset(path, str(tmp_path / "out"), format, limits=ShardLimits(bytes=5_000))
    sizes = [one.stat().st_size for one in sorted((tmp_path / "out").glob(kinds[format]))]
    assert len(sizes) > 1
    assert max(sizes) < 40_000
    assert READERS[format](str(tmp_path / "out")) == exported.stored(path)


@pytest.mark.parametrize("format", FORMATS)
def test_dtypes(path: str, tmp_path: Path, format: Any) -> None:
    out = str(tmp_path / "out")
    export.export_dataset(path, out, format)
    if format == "webdataset":
        for sample in exported.samples(out):
            for column, dtype, width in (("photo_embedding", "f4", 4), ("photo_tokens", "f2", 3)):
                if f"{column}.npy" in sample:
                    assert sample[f"{column}.npy"].dtype == np.dtype(dtype)
                    assert sample[f"{column}.npy"].shape[-1] == width
        return
    import datasets
    import lance

    found = lance.dataset(out).schema if format == "lance" else datasets.load_from_disk(out).data.schema
    plain = pa.list_(pa.float32(), 4 if format == "lance" else -1)
    assert found.field("photo_embedding").type == plain
    for name in ("photo_tokens", "half", "when", "blob", "number", "words_token_ids"):
        assert found.field(name).type == exported.SCHEMA.field(name).type


def _three_nights(out: Path) -> str:
    """A dataset whose third snapshot replaced a row of the first."""
    night(out / "v1", RUNS[1], ["a", "b", "c"])
    night(out / "v1", RUNS[2], ["d"])
    night(out / "v1", RUNS[3], ["b"], drops={f"data/{RUNS[1]}-000000-000.parquet": [1]})
    return str(out)


@pytest.mark.parametrize("format", FORMATS)
def test_a_snapshot_by_number_or_by_the_name_of_a_pin(tmp_path: Path, format: Any) -> None:
    path = _three_nights(tmp_path / "ds")
    maintenance.pin(path, "training", 2)
    for number, (snapshot, expected) in enumerate({None: "abcd", 1: "abc", "training": "abcd"}.items()):
        out = str(tmp_path / f"out{number}")
        done = export.export_dataset(path, out, format, ["sample_id"], snapshot=snapshot)
        assert sorted(one["sample_id"] for one in READERS[format](out)) == list(expected)
        assert done.snapshot == exported.record(out)["snapshot"] == {None: 3, 1: 1, "training": 2}[snapshot]
    assert exported.record(out)["run_id"] == RUNS[2]
    assert [one.name for one in pins.pins(f"{path}/v1")[0]] == ["training"]


def test_a_version(tmp_path: Path) -> None:
    night(tmp_path / "ds" / "v1", RUNS[1], ["a"])
    night(tmp_path / "ds" / "v2", RUNS[2], ["b", "c"])
    done = export.export_dataset(str(tmp_path / "ds"), str(tmp_path / "out"), "lance", ["sample_id"], version="v1")
    assert (done.version, done.rows) == ("v1", 1)
    with pytest.raises(ConfigError, match="there is no version 'v9'"):
        export.export_dataset(str(tmp_path / "ds"), str(tmp_path / "x"), "lance", version="v9")


@pytest.mark.parametrize("format", FORMATS)
def test_a_dataset_without_rows(tmp_path: Path, format: Any) -> None:
    path, out = written.write(tmp_path / "ds", [], shards=0), str(tmp_path / "out")
    assert export.export_dataset(path, out, format).rows == 0
    assert READERS[format](out) == []
    assert exported.record(out)["complete"] is True


@pytest.mark.parametrize("format", FORMATS)
def test_an_output_that_is_there_is_refused(path: str, tmp_path: Path, format: Any) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("precious")
    (tmp_path / "file").write_text("precious")
    (tmp_path / "empty").mkdir()
    for name in ("full", "file"):
        with pytest.raises(ConfigError, match=r"OUT: .*(is not empty|is no folder); a new or an empty folder"):
            export.export_dataset(path, str(tmp_path / name), format)
    assert {one.name for one in tmp_path.iterdir()} == {"full", "file", "empty"}
    assert (tmp_path / "full" / "x").read_text() == (tmp_path / "file").read_text() == "precious"
    export.export_dataset(path, str(tmp_path / "empty"), format)
    with pytest.raises(ConfigError, match="is not empty"):
        export.export_dataset(path, str(tmp_path / "empty"), format)


def test_wrong_arguments(path: str, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    for options, words in (
        ({"format": "csv"}, "--format: found 'csv'; one of: webdataset, lance, datasets"),
        ({"columns": ["nope"]}, "--columns: there is no column 'nope'; one of: sample_id, "),
        ({"snapshot": 7}, "snapshot: there is no snapshot 7"),
        ({"snapshot": "best"}, "there is no pin 'best'"),
    ):
        with pytest.raises(ConfigError) as caught:
            export.export_dataset(path, out, **{"format": "datasets", **options})
        assert words in str(caught.value)
    for limits, words in (((0, 1), "--shard-rows: found 0"), ((None, 0), "--shard-bytes: found 0")):
        with pytest.raises(ConfigError, match=words):
            ShardLimits(*limits)
    assert list(tmp_path.iterdir()) == []
    assert pins.pins(f"{path}/v1")[0] == []


@pytest.mark.parametrize(("format", "name"), [("webdataset",) * 2, ("lance",) * 2, ("datasets",) * 2])
def test_a_library_that_is_not_installed(
    path: str, tmp_path: Path, format: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError) as caught:
        export.export_dataset(path, str(tmp_path / "out"), format)
    assert str(caught.value).endswith("pip install 'tessera[export]'")
    assert f"'{name}'" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def _start(path: str, out: Path, format: str, started: Path) -> subprocess.Popen[str]:
    """Starts an export that stops after some batches, and returns once it is there."""
    program = [sys.executable, "-m", "tests.export.programs.slow_export", path, str(out), format, str(started)]
    child = subprocess.Popen(program, cwd=ROOT, text=True, stderr=subprocess.PIPE, env={**os.environ})
    until = time.monotonic() + 60
    while not started.exists():
        assert child.poll() is None, child.stderr and child.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.02)
    return child


@pytest.mark.parametrize(
    "format", [one if one == "lance" else pytest.param(one, marks=pytest.mark.slow) for one in FORMATS]
)
@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupted_export_leaves_nothing_that_looks_whole(tmp_path: Path, format: Any, number: int) -> None:
    path, out = exported.write(tmp_path / "ds", 600), tmp_path / "exports" / "out"
    child = _start(path, out, format, tmp_path / "started")
    try:
        (pin,) = pins.pins(f"{path}/v1")[0]
        assert pin.name.startswith("export-")
        (staging,) = (tmp_path / "exports").iterdir()
        assert staging.name.startswith(".out.partial-")
    finally:
        child.send_signal(number)
        _, errors = child.communicate(timeout=30)
    assert not out.exists()
    left = list((tmp_path / "exports").iterdir())
    if number == signal.SIGTERM:
        assert (child.returncode, errors) == (4, "tessera: interrupted\n")
        assert left == []
        assert pins.pins(f"{path}/v1")[0] == []
    else:
        assert left == [staging]
        assert not list(staging.rglob(".tessera-export.json"))
        (pin,) = pins.pins(f"{path}/v1")[0]
        assert pin.until is not None
    export.export_dataset(path, str(out), format, ["sample_id"])  # what the first one left does not prevent it
    assert len(READERS[format](str(out))) == 600


@pytest.mark.parametrize("format", FORMATS)
def test_the_snapshot_is_kept_from_a_vacuum_meanwhile(tmp_path: Path, format: Any) -> None:
    """The vacuum comes after the first batch. The second file of the snapshot is opened after it."""
    path, out, done = _three_nights(tmp_path / "ds"), str(tmp_path / "out"), []

    def vacuum(line: str) -> None:
        if not done:
            done.append(line)
            maintenance.compact(path)
            maintenance.vacuum(path, 0)
            assert {one.snapshot for one in pins.pins(f"{path}/v1")[0]} == {2}

    export.export_dataset(path, out, format, ["sample_id"], snapshot=2, report=vacuum)
    assert sorted(one["sample_id"] for one in READERS[format](out)) == ["a", "b", "c", "d"]
    assert len(done) == 1
    assert pins.pins(f"{path}/v1")[0] == []
    maintenance.vacuum(path, 0)
    with pytest.raises(ConfigError, match="there is no snapshot 2"):
        dataset.open(path, snapshot=2)


@pytest.mark.parametrize("format", FORMATS)
def test_an_error_in_the_middle_leaves_nothing(tmp_path: Path, format: Any) -> None:
    path, exports = exported.write(tmp_path / "ds", 300), tmp_path / "exports"
    lines: list[str] = []
    shard = sorted((tmp_path / "ds" / "v1" / "data").iterdir())[1]
    shard.write_bytes(shard.read_bytes()[:2000])
    with pytest.raises(ConfigError, match=rf"path: 'data/{shard.name}' of .* cannot be read"):
        export.export_dataset(path, str(exports / "out"), format, report=lines.append)
    assert lines[0] == "exported 0 of 300 rows"
    assert list(exports.iterdir()) == []
    assert pins.pins(f"{path}/v1")[0] == []


@pytest.mark.parametrize("format", FORMATS)
def test_what_another_process_made_meanwhile_is_not_replaced(path: str, tmp_path: Path, format: Any) -> None:
    def interfere(line: str) -> None:
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / "x").write_text("precious")

    with pytest.raises(ConfigError, match="was made by another process"):
        export.export_dataset(path, str(tmp_path / "out"), format, ["number"], report=interfere)
    assert [one.name for one in tmp_path.rglob("*")] == ["out", "x"]
    assert (tmp_path / "out" / "x").read_text() == "precious"


def test_forgotten_samples_are_not_exported(tmp_path: Path) -> None:
    path = _three_nights(tmp_path / "ds")
    maintenance.forget(path, ["a"])
    assert ids(path) == ["b", "c", "d"]
    for format in FORMATS:
        out = str(tmp_path / format)
        export.export_dataset(path, out, format, ["sample_id"])
        assert sorted(one["sample_id"] for one in READERS[format](out)) == ["b", "c", "d"]
    with pytest.raises(ConfigError, match="--snapshot: snapshot 1 holds samples that were forgotten since"):
        export.export_dataset(path, str(tmp_path / "old"), "lance", snapshot=1)


def test_the_record_has_the_lineage_and_no_secret(tmp_path: Path) -> None:
    path = exported.write(tmp_path / "ds", 5)
    for format in FORMATS:
        export.export_dataset(path, str(tmp_path / format), format)
        found = exported.record(str(tmp_path / format))
        assert found["complete"] is True
        assert (found["version"], found["snapshot"], found["rows"]) == ("v1", 1, 5)
        assert found["lineage"]["features"]["photo"]["space"] == "s"
        assert json.dumps(found).isascii()
        assert str(tmp_path) not in json.dumps(found)
