"""`tessera export` and `tessera card`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.dataset import maintenance
from tests.dataset.loading import written
from tests.export import exported
from tests.support.dataset_fixtures import RUNS, night

Called = Callable[..., Any]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return exported.write(tmp_path / "ds", 20)


def _document(done: Any) -> Any:
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1), done
    return json.loads(done.stdout, parse_constant=lambda name: pytest.fail(name))


@pytest.mark.parametrize("format", ["webdataset", "lance", "datasets"])
def test_export_as_json(path: str, tmp_path: Path, called: Called, format: str) -> None:
    out = str(tmp_path / "out")
    options = ["--columns", "sample_id,label", "--columns", "number", "--shard-rows", "8", "--json"]
    found = _document(called("export", path, out, "--format", format, *options))
    assert exported.READERS[format](out) == exported.stored(path, ["sample_id", "label", "number"])
    expected = {"dataset": path, "output": out, "format": format, "rows": 20, "version": "v1", "snapshot": 1}
    assert {name: found[name] for name in expected} == expected
    assert found["columns"] == ["sample_id", "label", "number"]
    assert found["pinned"] is True
    assert found["warnings"] == []


def test_export_for_people(path: str, tmp_path: Path, called: Called) -> None:
    done = called("export", path, str(tmp_path / "out"), "--format", "lance", "--columns", "number")
    first, second = done.stdout.splitlines()
    assert first.startswith("exported 20 rows and 1 column of snapshot 1 of version v1: lance, ")
    assert second == f"output: {tmp_path}/out"
    assert (done.returncode, done.stderr) == (0, "")


def test_a_snapshot_by_number_and_by_name(tmp_path: Path, called: Called) -> None:
    path = tmp_path / "ds"
    night(path / "v1", RUNS[1], ["a"])
    night(path / "v1", RUNS[2], ["b"])
    maintenance.pin(str(path), "training", 1)
    for number, (snapshot, rows) in enumerate((("1", 1), ("training", 1), ("2", 2))):
        out = str(tmp_path / f"out{number}")
        options = ("--format", "datasets", "--snapshot", snapshot, "--version", "v1", "--json")
        assert _document(called("export", str(path), out, *options))["rows"] == rows
    card = _document(called("card", str(path), "--snapshot", "training", "--json"))
    assert (card["snapshot"], card["rows"]) == (1, 1)


def test_errors_are_one_line(path: str, tmp_path: Path, called: Called, monkeypatch: pytest.MonkeyPatch) -> None:
    out = str(tmp_path / "out")
    for args, words in (
        (["export", path, path, "--format", "lance"], "is in the dataset; a folder outside of it"),
        (["export", path, str(tmp_path), "--format", "lance"], "OUT: "),
        (["export", path, out, "--format", "csv"], "csv"),
        (["export", path, out], "--format"),
        (["export", path, out, "--format", "lance", "--shard-rows", "0"], "--shard-rows: found 0; at least 1"),
        (["export", path, out, "--format", "lance", "--columns", "x\x1by"], r"there is no column 'x\x1by'"),
        (["export", f"{path}-no", out, "--format", "lance"], "holds no dataset"),
        (["card", path, "--out", f"{path}/v1"], "is in the dataset"),
    ):
        done = called(*args)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
        assert words in done.stderr
    monkeypatch.setitem(sys.modules, "lance", None)
    done = called("export", path, out, "--format", "lance")
    assert done.returncode == 2
    assert done.stderr.endswith("; pip install 'tessera[export]'\n")
    assert not Path(out).exists()


def test_card(path: str, tmp_path: Path, called: Called) -> None:
    done = called("card", path)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "wrote README.md and croissant.json for snapshot 1 of version v1: 20 rows in 3 shards",
        "warning: Croissant has no type for columns, which croissant.json leaves out: blob",
        f"output: {path}",
    ]
    again = called("card", path)
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr.endswith("README.md' is there already; --overwrite to replace it, or another folder\n")
    found = _document(called("card", path, "--overwrite", "--json"))
    assert (found["files"], found["shards"]) == (["README.md", "croissant.json"], 3)
    other = _document(called("card", path, "--out", str(tmp_path / "card"), "--version", "v1", "--json"))
    assert other["output"] == str(tmp_path / "card")


def test_a_card_of_a_dataset_that_changed_says_what_to_do(tmp_path: Path, called: Called) -> None:
    path = written.write(tmp_path / "ds", [written.row(number) for number in range(9)], deleted=(2,))
    done = called("card", path)
    assert done.returncode == 2
    assert "run `tessera compact` first, or export the snapshot" in done.stderr
