"""Night after night over a manifest with bad rows: each is one failure with its place, and goes once it is mended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import dataset, run
from pipeline.core.errors import FAILURE_KINDS, BudgetExceeded, ConfigError
from pipeline.core.schema import LISTING
from pipeline.stages.probe import ProbeStage
from tests.end_to_end.test_forbidden import PICTURE, draw, kinds, night, shown
from tests.stages.media_fixtures import IMAGE, bound, config
from tests.support import local_runs

COLUMNS = {"id": "id", "image": "pic"}


def manifest(folder: Path, rows: list[dict[str, Any]]) -> None:
    (folder / "in").mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "in" / "list.parquet")


def extract(folder: Path, **options: Any) -> dict[str, Any]:
    source = {"path": str(folder / "in" / "list.parquet"), "columns": COLUMNS, "passthrough": ["label"], **options}
    return night(folder, {"p": PICTURE}, **source)


def classes(report: dict[str, Any]) -> dict[str, int]:
    return {name: count for name, count in report["samples_by_class"].items() if count}


def test_each_bad_row_is_one_failure_until_it_is_mended(ray_session: Any, tmp_path: Path) -> None:
    for i, name in enumerate("abc"):
        draw(tmp_path / "in" / f"{name}.png", 10 + i)
    rows: list[dict[str, Any]] = [
        {"id": "a", "pic": "a.png", "label": "good"},
        {"id": None, "pic": None, "label": "bad"},
        {"id": "b", "pic": "http://host/b.png", "label": "bad"},
        {"id": "c", "pic": "s3://KEY:hunter2@bucket/c.png", "label": "bad"},
    ]
    manifest(tmp_path, rows)
    report = extract(tmp_path)
    assert classes(report) == {"new": 4}
    assert (report["rows_planned"], report["rows_written"], report["rows_failed"]) == (4, 1, 3)
    assert report["failures_by_kind"] == {"invalid": 3}
    assert report["failures_by_stage"] == {"probe": 3}
    assert shown(tmp_path) == {"a": 10}
    found = dataset.open(str(tmp_path / "out")).failures().sort_by("sample_id").to_pylist()
    assert [row["sample_id"] for row in found] == [f"list.parquet#row {i}" for i in (2, 3, 4)]
    assert [row["message"] for row in found] == [
        "row 2 of 'list.parquet' has no id and no file",
        "row 3 of 'list.parquet' has 'http://host/b.png' in column 'pic'; "
        "schemes that are allowed: file, s3, gs, abfs, memory",
        "row 4 of 'list.parquet' has a URL with a password or a signature in column 'pic'",
    ]
    for row in found:
        assert (row["feature"], row["uri"], row["stage"], row["kind"]) == (None, None, "probe", "invalid")
        assert (row["window"], row["row_written"]) == (0, False)
    for file in (tmp_path / "out").rglob("*"):
        assert not file.is_file() or b"hunter2" not in file.read_bytes()

    again = extract(tmp_path)
    assert classes(again) == {"unchanged": 4}
    assert (again["samples"], again["rows_planned"]) == (0, 0)

    rows[2]["pic"] = "b.png"  # mended
    rows[3]["pic"] = "data:,x"  # bad for another reason
    manifest(tmp_path, rows)
    assert classes(extract(tmp_path)) == {"new": 1, "changed": 1, "unchanged": 2, "deleted": 1}
    assert shown(tmp_path) == {"a": 10, "b": 11}
    assert kinds(tmp_path) == {"list.parquet#row 2": "invalid", "list.parquet#row 4": "invalid"}

    manifest(tmp_path, [rows[0], rows[2], {**rows[3], "pic": "c.png"}])
    assert classes(extract(tmp_path)) == {"new": 1, "unchanged": 2, "deleted": 2}
    assert shown(tmp_path) == {"a": 10, "b": 11, "c": 12}
    assert dataset.open(str(tmp_path / "out")).num_failures == 0
    labels = dataset.open(str(tmp_path / "out")).to_arrow(["sample_id", "label"]).to_pylist()
    assert {row["sample_id"]: row["label"] for row in labels} == {"a": "good", "b": "bad", "c": "bad"}


def test_bad_rows_count_in_the_budget_of_failures(ray_session: Any, tmp_path: Path) -> None:
    draw(tmp_path / "in" / "a.png", 10)
    manifest(tmp_path, [{"id": one, "pic": "a.png", "label": ""} for one in ("a", None)])
    from pipeline import config as configs

    raw = {
        "source": {
            "kind": "manifest",
            "path": str(tmp_path / "in" / "list.parquet"),
            "columns": COLUMNS,
        },
        "output": {"path": str(tmp_path / "out")},
        "features": {"p": PICTURE},
        "failures": {"max_rows": 0},
        "decoders": {"limits": {"isolate": False}},
    }
    with pytest.raises(BudgetExceeded, match="1 of 2 rows failed"):
        run.extract(local_runs.prepare(configs.parse(raw)), show_progress=False)


def test_a_manifest_of_nothing_but_bad_rows_changes_nothing(ray_session: Any, tmp_path: Path) -> None:
    draw(tmp_path / "in" / "a.png", 10)
    row = {"id": "a", "pic": "a.png", "label": "x"}
    manifest(tmp_path, [row])
    extract(tmp_path)
    manifest(tmp_path, [{**row, "id": None}, {**row, "pic": "data:,x"}])
    words = r"source\.columns: none of 2 rows names a sample: row 1 of 'list.parquet' has no id"
    with pytest.raises(ConfigError, match=words):
        extract(tmp_path)
    assert shown(tmp_path) == {"a": 10}


def test_rows_that_no_parser_takes(ray_session: Any, tmp_path: Path) -> None:
    draw(tmp_path / "in" / "a.png", 10)
    (tmp_path / "in" / "m.csv").write_text("id,pic,label\na,a.png,x\nb,a.png\nc,a.png,x\n")
    source: dict[str, Any] = {"columns": COLUMNS, "passthrough": ["label"]}
    report = night(tmp_path, {"p": PICTURE}, path=str(tmp_path / "in" / "m.csv"), **source)
    assert (report["rows_written"], report["rows_failed"]) == (2, 1)
    (failed,) = dataset.open(str(tmp_path / "out")).failures().to_pylist()
    assert failed["message"] == "row 2 of 'm.csv' has 2 fields, not 3"
    lines = [{"id": "a", "pic": "a.png", "label": "x"}, {"id": "c", "pic": "a.png", "label": "x"}]
    (tmp_path / "in" / "m.jsonl").write_text("\n".join(map(json.dumps, lines)).replace("\n", "\nbroken\n"))
    report = night(tmp_path, {"p": PICTURE}, path=str(tmp_path / "in" / "m.jsonl"), **source)
    assert classes(report) == {"new": 1, "unchanged": 2, "deleted": 1}
    (failed,) = dataset.open(str(tmp_path / "out")).failures().to_pylist()
    assert failed["sample_id"] == "m.jsonl#line 2"
    assert failed["message"].startswith("line 2 of 'm.jsonl' is not JSON")


def test_a_folder_of_parquet_is_extracted(ray_session: Any, tmp_path: Path) -> None:
    folder = tmp_path / "in" / "list.parquet"
    for i, name in enumerate("ab"):
        draw(tmp_path / "in" / f"{name}.png", 10 + i)
        (folder / f"day={i}").mkdir(parents=True)
        rows = {"id": [name, None], "pic": [f"{name}.png", "x.png"], "label": ["x", "y"]}
        pq.write_table(pa.table(rows), folder / f"day={i}" / "part-0.parquet")
    assert classes(extract(tmp_path)) == {"new": 4}
    assert shown(tmp_path) == {"a": 10, "b": 11}
    assert set(kinds(tmp_path)) == {f"list.parquet#row 2 of day={i}/part-0.parquet" for i in (0, 1)}
    assert classes(extract(tmp_path)) == {"unchanged": 4}


def test_the_probe_makes_one_row_and_one_failure_of_it(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    draw(tmp_path / "in" / "a.png", 10)
    settings, features, _ = bound(config(tmp_path / "in", {"i": IMAGE, "j": IMAGE}))
    bad = {"sample_id": "m.csv#row 1", "source_version": "1", "refused": "row 1 of 'm.csv' has no id"}
    good = {"sample_id": "a.png", "source_version": "1", "image_uri": str(tmp_path / "in" / "a.png")}
    stage = ProbeStage(settings, features)
    stage.setup()
    first, second = stage(pa.Table.from_pylist([bad, good], schema=LISTING)).to_pylist()
    message = "row 1 of 'm.csv' has no id"
    assert first["failures"] == [
        {"feature": None, "uri": None, "stage": "probe", "kind": "invalid", "message": message}
    ]
    assert (first["window"], first["windows"], first["final"], first["promised"]) == (0, 1, True, 1)
    assert first["image_uri"] is None
    assert second["failures"] == []
    assert second["image_uri"] == good["image_uri"]
    assert "invalid" in FAILURE_KINDS
