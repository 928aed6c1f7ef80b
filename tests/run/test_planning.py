"""Windows tile a sample: nothing lost, nothing invented, the overlap as declared."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa

from pipeline.core.schema import LISTING
from pipeline.run.planning import make, readable
from tests.stages.media_fixtures import IMAGE, config


def test_readable_samples_hold_what_a_feature_reads() -> None:
    rows = [
        {"sample_id": "a", "source_version": "1", "video_uri": "a.mp4"},
        {"sample_id": "b", "source_version": "1", "inline_text": "words"},
        {"sample_id": "c", "source_version": "1", "text_uri": "c.txt"},
    ]
    listing = pa.Table.from_pylist(rows, schema=LISTING)
    assert readable(listing, {"text"})["sample_id"].to_pylist() == ["b", "c"]
    assert readable(listing, {"audio"})["sample_id"].to_pylist() == ["a"]


def test_rows_that_name_no_sample_are_kept_for_their_failure() -> None:
    rows = [
        {"sample_id": "a", "source_version": "1", "image_uri": "a.png"},
        {"sample_id": "m.csv#row 2", "source_version": "1", "refused": "row 2 of 'm.csv' has no id"},
        {"sample_id": "c", "source_version": "1"},
    ]
    listing = pa.Table.from_pylist(rows, schema=LISTING)
    for modalities in ({"text"}, {"audio"}, set()):
        assert readable(listing, modalities)["sample_id"].to_pylist() == ["m.csv#row 2"]
    assert readable(listing, {"image"})["sample_id"].to_pylist() == ["a", "m.csv#row 2"]


def test_a_plan_counts_what_is_left_out_and_what_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"x")
    os.mkfifo(tmp_path / "in" / "pipe.png")
    plan = make(config(tmp_path / "in", {"i": IMAGE}), [], (), None)
    assert (plan.samples, plan.unused) == (1, 0)
    assert plan.left_out == {"that are pipes, sockets or devices": 1}
    (tmp_path / "in" / "m.csv").write_text("id,pic\na,a.png\n,a.png\nc,\n")
    source = {"kind": "manifest", "path": str(tmp_path / "in" / "m.csv"), "columns": {"id": "id", "image": "pic"}}
    plan = make(config(tmp_path / "in", {"i": IMAGE}, source=source), [], (), None)
    assert (plan.samples, plan.unused, plan.left_out) == (2, 1, {})
    assert plan.samples_by_role["image"] == 1
