"""Snapshots, versions and maintenance results, printed and as JSON."""

from __future__ import annotations

from pathlib import Path

from pipeline.dataset import describe, describe_versions, maintenance
from tests.dataset.shards.test_writer import rows
from tests.dataset.test_describe import LINEAGE, _dataset, _printed
from tests.support.dataset_fixtures import RUNS, night


def test_one_of_a_kind_is_singular(tmp_path: Path) -> None:
    _dataset(tmp_path, rows(["a", "b"], {1: "corrupt"}), {"f": LINEAGE}, [])
    assert "1 row in 1 shard, " in (text := _printed(describe.show, str(tmp_path), 0))
    assert " · 1 failure\n" in text
    done = [maintenance.MaintenanceResult("v1", 7, rewritten=1, removed=1, bytes=1)]
    for what, words in (
        ("rewrote", "1 file rewritten, 1 deleted row left out, wrote 1 B"),
        ("forgot", "1 row or failure removed from 1 file, wrote 1 B"),
        ("vacuumed", "1 file deleted, 1 B freed"),
        ("rolled back", "the rows are those of the old snapshot again"),
    ):
        assert _printed(describe_versions.show_done, what, done) == f"v1: {words} · snapshot 7\n"


def test_snapshots_and_versions_are_listed(tmp_path: Path) -> None:
    for version in ("v1", "v2"):
        night(tmp_path / version, RUNS[1], ["a", "b", "c"], {2: "corrupt"})
    night(tmp_path / "v2", RUNS[2], ["d"], drops={f"data/{RUNS[1]}-000000-000.parquet": [0]})
    text = _printed(describe_versions.show_snapshots, str(tmp_path), "v2")
    lines = [line.split() for line in text.splitlines()[1:]]
    assert [(line[0], line[3], line[4], line[5:]) for line in lines] == [
        ("1", "extract", RUNS[1], ["2", "1", "1"]),
        ("2", "extract", RUNS[2], ["2", "1", "2"]),
    ]
    found = describe_versions.snapshots_document(str(tmp_path), "v2")
    assert (found["version"], [one["snapshot"] for one in found["snapshots"]]) == ("v2", [1, 2])
    assert [(one["rows"], one["failures"], one["shards"]) for one in found["snapshots"]] == [(2, 1, 1), (2, 1, 2)]
    maintenance.use(str(tmp_path), "v1")
    text = _printed(describe_versions.show_versions, str(tmp_path))
    assert [line.split()[:2] for line in text.splitlines()[1:]] == [["v1", "(current)"], ["v2", "2"]]
    found = describe_versions.versions_document(str(tmp_path))
    assert (found["current"], [(one["version"], one["current"]) for one in found["versions"]]) == (
        "v1",
        [("v1", True), ("v2", False)],
    )
    assert [(one["snapshot"], one["rows"], one["features"]) for one in found["versions"]] == [
        (1, 2, ["f"]),
        (2, 2, ["f"]),
    ]
    done = [maintenance.compact(str(tmp_path), "v2")]
    text = _printed(describe_versions.show_done, "rewrote", done)
    assert text.startswith("v2: 2 files rewritten, 1 deleted row left out, wrote ")
    assert text.endswith("snapshot 3\n")
    document = describe_versions.done_document("rewrote", str(tmp_path), done)
    assert document["versions"] == [
        {
            "version": "v2",
            "snapshot": 3,
            "files_rewritten": 2,
            "deleted_rows_left_out": 1,
            "bytes_written": done[0].bytes,
        }
    ]
