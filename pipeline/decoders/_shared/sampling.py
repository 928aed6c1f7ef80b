"""The instants at which a video is sampled, and the frames shown at them."""

from __future__ import annotations

import math

import numpy as np

from pipeline.core.errors import SampleError
from pipeline.core.media import FpsSampling, Sampling, Span, UniformSampling


def instants(sampling: Sampling, start_s: float, end_s: float, tolerance_s: float = 5e-7) -> np.ndarray:
    """Increasing times [T] in ``[start_s, end_s)`` at which pictures are sampled.

    Args:
        tolerance_s: a grid time up to this long before ``start_s`` belongs to this window, not to the previous one.

    Raises:
        SampleError: ``empty`` if the window has no duration.
    """
    if not end_s > start_s:
        raise SampleError("empty", f"no pictures between {end_s:.3f} s and {start_s:.3f} s")
    if isinstance(sampling, UniformSampling):
        return start_s + (np.arange(sampling.frames) + 0.5) * ((end_s - start_s) / sampling.frames)
    assert isinstance(sampling, FpsSampling)
    first = math.ceil((start_s - tolerance_s) * sampling.fps)
    last = math.ceil((end_s - tolerance_s) * sampling.fps)
    if last <= first:
        return np.array([start_s])
    if sampling.max_frames is not None and last - first > sampling.max_frames:
        return instants(UniformSampling(sampling.max_frames), start_s, end_s, tolerance_s)
    return np.arange(first, last) / sampling.fps


def shown_at(frame_times_s: np.ndarray, instants_s: np.ndarray, tolerance_s: float = 5e-7) -> np.ndarray:
    """Index of the frame shown at each instant: the last one that begins at it or before, or else the first.

    Args:
        tolerance_s: a frame that begins up to this long after an instant counts as shown at it.
    """
    return np.maximum(np.searchsorted(frame_times_s - tolerance_s, instants_s, side="right") - 1, 0)


def not_before(times_s: np.ndarray, start_s: float, span: Span) -> np.ndarray:
    """``times_s`` with times up to one tick before ``start_s`` set to ``start_s``, because they are rounding errors.

    Earlier times, of pictures that are already shown when the window begins, are not changed.
    """
    rounded = (times_s < start_s) & (times_s > start_s - span.tick_s)
    return np.where(rounded, start_s, times_s)
