"""Windows, by hand and by properties."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.models import WindowConfig
from pipeline.stages.windows import cut


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
