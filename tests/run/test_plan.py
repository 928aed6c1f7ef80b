"""Windows tile a sample: nothing lost, nothing invented, the overlap as declared."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.bound import roles_to_open
from pipeline.config.models import WindowConfig
from pipeline.core.schema import LISTING
from pipeline.run.plan import make, readable
from pipeline.stages.units import unit_rows
from pipeline.stages.windows import cut
from tests.stages.media_fixtures import IMAGE, config


def test_by_hand() -> None:
    assert cut(25.0, WindowConfig(length_s=10)) == [(0, 10), (10, 20), (20, 25)]
    assert cut(20.0, WindowConfig(length_s=10)) == [(0, 10), (10, 20)]
    assert cut(3.0, WindowConfig(length_s=10)) == [(0, 3)]
    assert cut(25.0, WindowConfig(length_s=10, overlap_s=5)) == [(0, 10), (5, 15), (10, 20), (15, 25)]
    assert cut(25.0, WindowConfig(length_s=10, tail="merge")) == [(0, 10), (10, 25)]
    assert cut(25.0, WindowConfig(length_s=10, tail="drop")) == [(0, 10), (10, 20)]
    assert cut(3.0, WindowConfig(length_s=10, tail="drop")) == []
    assert cut(25.0, WindowConfig()) == [(0, 25)]


@pytest.mark.parametrize("tail", ["keep", "merge", "drop"])
def test_no_window_is_shorter_than_a_tick(tail: str) -> None:
    for window in (WindowConfig(length_s=5, tail=tail), WindowConfig(length_s=5, overlap_s=2.5, tail=tail)):
        even = cut(20.0, window)
        for end_s in (20.0 - 4e-4, 20.0 - 1e-7, 20.0 + 1e-7, 20.0 + 4e-4, 20.0 + 9e-4):
            windows = cut(end_s, window, tick_s=1e-3)
            assert len(windows) == len(even), end_s
            assert windows[-1][1] == min(end_s, 20.0)
    assert cut(5.0004, WindowConfig(length_s=5, tail=tail), 1e-3) == [(0, 5)]
    assert cut(20.001, WindowConfig(length_s=5), 1e-3)[-1] == (20, 20.001)  # a whole tick is kept
    exactly = WindowConfig(length_s=5, max_windows=4)
    assert len(cut(20.0 + 1e-7, exactly)) == 4


@settings(deadline=None)
@given(
    st.floats(0.01, 2_000, allow_nan=False),
    st.floats(0.5, 60),
    st.floats(0, 0.9),
    st.sampled_from(["keep", "merge"]),
)
def test_windows_cover_everything_in_order(end_s: float, length: float, share: float, tail: str) -> None:
    overlap = length * share
    window = WindowConfig(length_s=length, overlap_s=overlap, tail=tail)
    windows = cut(end_s, window)
    assert windows[0][0] == 0
    assert 0 <= end_s - windows[-1][1] < 1e-6
    for (start, end), (after, _) in itertools.pairwise(windows):
        assert start < after <= end
        assert end - after == pytest.approx(overlap, abs=1e-6)
        if overlap == 0:
            assert end == after
    assert all(end > start for start, end in windows)


def test_roles() -> None:
    assert roles_to_open({"audio"}) == ("video", "audio", "other")
    assert roles_to_open({"text"}) == ("text", "other")


@pytest.mark.parametrize(
    ("asked", "samples", "expected"),
    [(None, 40, 32), (None, 4_000, 62), (None, 40_000, 128), (None, 60_000, 256), (7, 40, 7), (7, 60_000, 256)],
)
def test_blocks_are_smaller_where_there_are_few_samples(
    tmp_path: Path, asked: int | None, samples: int, expected: int
) -> None:
    compute = {} if asked is None else {"block_rows": asked}
    settings = config(tmp_path, {"i": IMAGE}, compute=compute)
    assert unit_rows(settings, samples) == expected
    if asked is None:
        assert unit_rows(settings, 40, of=1_000_000) == 128, "the last of many partitions"


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
