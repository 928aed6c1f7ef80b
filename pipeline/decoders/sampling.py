"""At which times a clip is looked at."""

from __future__ import annotations

import math

import numpy as np

from pipeline.errors import SampleError
from pipeline.media import FpsSampling, Sampling, UniformSampling

_EPSILON = 1e-6


def instants(sampling: Sampling, start_s: float, end_s: float) -> np.ndarray:
    """Increasing times [T] in ``[start_s, end_s)``: the picture shown at each of them is taken.

    Raises:
        SampleError: ``empty`` if no time is left in it.
    """
    if not end_s > start_s:
        raise SampleError("empty", f"no pictures between {end_s:.3f} s and {start_s:.3f} s")
    if isinstance(sampling, UniformSampling):
        return start_s + (np.arange(sampling.frames) + 0.5) * ((end_s - start_s) / sampling.frames)
    assert isinstance(sampling, FpsSampling)
    first = math.ceil(start_s * sampling.fps - _EPSILON)
    last = math.ceil(end_s * sampling.fps - _EPSILON)
    if last <= first:
        return np.array([start_s])
    if sampling.max_frames is not None and last - first > sampling.max_frames:
        return instants(UniformSampling(sampling.max_frames), start_s, end_s)
    return np.arange(first, last) / sampling.fps


def shown_at(frame_times_s: np.ndarray, instants_s: np.ndarray) -> np.ndarray:
    """Index of the frame shown at each instant: the latest that began, else the first."""
    return np.maximum(np.searchsorted(frame_times_s, instants_s + _EPSILON, side="right") - 1, 0)
