"""Snapshots, versions and maintenance results, printed and as JSON."""

from __future__ import annotations

from pathlib import Path

from pipeline.dataset import describe, describe_versions, maintenance
from pipeline.dataset.commit import snapshots
from tests.dataset.shards.test_writer import rows
from tests.dataset.test_describe import LINEAGE, _dataset, _printed
from tests.support.dataset_fixtures import RUNS, night


def test_one_of_a_kind_is_singular(tmp_path: Path) -> None:
    _dataset(tmp_path, rows(["a", "b"], {1: "corrupt"}), {"f": LINEAGE}, [])
    assert "1 row in 1 shard, " in (text := _printed(describe.show, str(tmp_path), 0))
    assert " · 1 failure\n" in text
    done = [maintenance.MaintenanceResult("v1", 7, rewritten=1, removed=1, bytes=1, runs=1)]
    for what, words in (
        ("rewrote", "1 file rewritten, 1 deleted row left out, wrote 1 B"),
        ("forgot", "1 row or failure removed from 1 file, wrote 1 B"),
        ("vacuumed", "1 file and 1 folder of an old run deleted, 1 B freed"),
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


def test_pins_are_listed_with_their_dates(tmp_path: Path) -> None:
    root = tmp_path / "v1"
    for number, name in enumerate("abc", start=1):
        night(root, RUNS[number], [name])
    assert "pins" not in _printed(describe_versions.show_snapshots, str(tmp_path), None)
    maintenance.pin(str(tmp_path), "training", at=1, until="2100-01-31")
    maintenance.pin(str(tmp_path), "paper", at=1)
    maintenance.pin(str(tmp_path), "gone", at=2, until="2100-01-31T12:00+02:00")
    snapshots.delete(str(root), 2)
    (root / "_pins" / "00000003.000001.json").write_text("{")
    found = describe_versions.snapshots_document(str(tmp_path), None)
    pins = [[(pin["name"], pin["until"], pin["expired"]) for pin in one["pins"]] for one in found["snapshots"]]
    assert pins == [[("training", "2100-01-31T23:59:59+00:00", False), ("paper", None, False)], []]
    (gone,) = found["pins_without_snapshot"]
    assert (gone["name"], gone["snapshot"], gone["until"]) == ("gone", 2, "2100-01-31T10:00:00+00:00")
    assert found["pins_unreadable"] == [f"{root}/_pins/00000003.000001.json"]
    lines = _printed(describe_versions.show_snapshots, str(tmp_path), None).splitlines()
    assert lines[0].endswith("  pins")
    assert lines[1].endswith("  training (until 2100-01-31 23:59:59), paper")
    assert lines[2].endswith("  –")
    assert lines[3] == "pin gone (until 2100-01-31 10:00:00) names snapshot 2, which has gone"
    assert lines[4] == f"{root}/_pins/00000003.000001.json is no file of pins: remove it"


def test_what_vacuum_did_to_pins_is_printed(tmp_path: Path) -> None:
    done = [
        maintenance.MaintenanceResult(
            "v1", 7, runs=2, pins_removed=("a", "b"), pins_expired=("c",), pins_unreadable=("/x/_pins/y",)
        )
    ]
    assert _printed(describe_versions.show_done, "vacuumed", done).splitlines() == [
        "v1: 0 files and 2 folders of old runs deleted, 0 B freed · snapshot 7",
        "v1: pins removed, since their snapshots held forgotten samples, or had gone: a, b",
        "v1: pins that had expired: c",
        "v1: /x/_pins/y is no file of pins; its snapshot is kept: remove the file",
    ]
    (version,) = describe_versions.done_document("vacuumed", str(tmp_path), done)["versions"]
    assert version == {
        "version": "v1",
        "snapshot": 7,
        "files_deleted": 0,
        "bytes_freed": 0,
        "run_folders_deleted": 2,
        "pins_removed": ("a", "b"),
        "pins_expired": ("c",),
        "pins_unreadable": ("/x/_pins/y",),
    }
