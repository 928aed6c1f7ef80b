from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import SampleError
from pipeline.core.media import FpsSampling, UniformSampling
from pipeline.decoders._shared.sampling import instants, shown_at
from tests.decoders.reference import shown


def test_uniform_takes_the_middles_of_equal_slices() -> None:
    assert instants(UniformSampling(4), 2.0, 4.0).tolist() == [2.25, 2.75, 3.25, 3.75]
    assert instants(UniformSampling(1), 0.0, 1.0).tolist() == [0.5]


def test_fps_has_one_grid_for_all_windows() -> None:
    whole = instants(FpsSampling(2.5), 0.0, 10.0)
    pieces = [instants(FpsSampling(2.5), a, b) for a, b in ((0.0, 1.3), (1.3, 4.0), (4.0, 10.0))]
    assert np.allclose(np.concatenate(pieces), whole)
    assert np.allclose(whole, np.arange(25) / 2.5)


def test_fps_gives_at_least_one_and_at_most_its_bound() -> None:
    assert instants(FpsSampling(0.1), 3.0, 4.0).tolist() == [3.0]
    assert np.allclose(instants(FpsSampling(30.0, max_frames=4), 2.0, 4.0), [2.25, 2.75, 3.25, 3.75])
    assert len(instants(FpsSampling(2.0, max_frames=4), 2.0, 4.0)) == 4


@pytest.mark.parametrize("sampling", [UniformSampling(4), FpsSampling(2.0)])
def test_no_time_no_pictures(sampling: UniformSampling | FpsSampling) -> None:
    with pytest.raises(SampleError, match="empty"):
        instants(sampling, 5.0, 5.0)
    with pytest.raises(SampleError, match="empty"):
        instants(sampling, 9.0, 5.0)


@given(fps=st.integers(1, 60), cuts=st.lists(st.integers(0, 3000), min_size=2, max_size=6, unique=True).map(sorted))
def test_no_instant_of_the_grid_is_lost_or_taken_twice(fps: int, cuts: list[int]) -> None:
    taken: list[int] = []
    for a, b in itertools.pairwise(cuts):  # hundredths of a second
        expected = [k for k in range(b * fps // 100 + 2) if a <= Fraction(100 * k, fps) < b]
        if expected:
            found = instants(FpsSampling(float(fps)), a / 100, b / 100)
            assert np.allclose(found * fps, expected, atol=1e-6)
            taken += expected
    assert len(taken) == len(set(taken))


@given(
    times=st.lists(st.integers(0, 1000), min_size=1, max_size=20, unique=True).map(sorted),
    asked=st.lists(st.integers(-50, 1050), min_size=1, max_size=20),
)
def test_shown_is_the_latest_that_began(times: list[int], asked: list[int]) -> None:
    seconds = [t / 100 for t in times]
    index = shown_at(np.array(seconds), np.array(asked) / 100)
    assert index.tolist() == [shown(seconds, a / 100) for a in asked]
