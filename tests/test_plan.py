"""Windows tile a sample: nothing lost, nothing invented, the overlap as declared."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import WindowConfig
from pipeline.plan import cut, roles_to_open


def test_by_hand() -> None:
    assert cut(25.0, WindowConfig(length_s=10)) == [(0, 10), (10, 20), (20, 25)]
    assert cut(20.0, WindowConfig(length_s=10)) == [(0, 10), (10, 20)]
    assert cut(3.0, WindowConfig(length_s=10)) == [(0, 3)]
    assert cut(25.0, WindowConfig(length_s=10, overlap_s=5)) == [(0, 10), (5, 15), (10, 20), (15, 25)]
    assert cut(25.0, WindowConfig(length_s=10, tail="merge")) == [(0, 10), (10, 25)]
    assert cut(25.0, WindowConfig(length_s=10, tail="drop")) == [(0, 10), (10, 20)]
    assert cut(3.0, WindowConfig(length_s=10, tail="drop")) == []
    assert cut(25.0, WindowConfig()) == [(0, 25)]


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
    assert windows[-1][1] == end_s
    for (start, end), (after, _) in itertools.pairwise(windows):
        assert start < after <= end
        assert end - after == pytest.approx(overlap, abs=1e-6)
        if overlap == 0:
            assert end == after
    assert all(end > start for start, end in windows)


def test_roles() -> None:
    assert roles_to_open({"audio"}) == ("video", "audio", "other")
    assert roles_to_open({"text"}) == ("text", "other")
