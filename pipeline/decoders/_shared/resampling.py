"""Resamples windows of a sound with torchaudio's windowed sinc, in bounded memory for any pair of rates.

Neighbouring windows join exactly. torchaudio precomputes a filter for each phase of the two rates' common grid. A pair
such as 44,101 Hz and 16,000 Hz has thousands of phases, whose filters would take gigabytes. For such pairs the filter
of each output sample is computed when it is needed, with the same formula.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torchaudio.transforms import Resample

_ZEROS = 6  # zero crossings of torchaudio's filter on each side
_ROLLOFF = 0.99
_MAX_KERNEL = 1 << 20
_CHUNK = 1 << 20

Read = Callable[[int, int], np.ndarray]
"""``(start, stop)`` -> float32 samples ``[start, stop)`` of a stream, ``start >= 0``; fewer if it ends before."""


def resampled(read: Read, rate: int, sample_rate: int, first: int, stop: int) -> np.ndarray:
    """Samples ``[first, stop)`` of a stream at ``sample_rate`` Hz, float32; fewer if the stream ends before.

    Sample n is n / ``sample_rate`` seconds after the stream's first sample, independently of other requests.

    Args:
        rate: the stream's own rate, Hz.
    """
    if rate == sample_rate:
        return read(first, stop)
    common = math.gcd(rate, sample_rate)
    source, target = rate // common, sample_rate // common
    width = math.ceil(_ZEROS * source / (min(source, target) * _ROLLOFF))
    if target * (2 * width + source) > _MAX_KERNEL:
        return _by_sample(read, source, target, width, first, stop)
    return _by_phase(read, source, target, width, first, stop)


def _by_phase(read: Read, source: int, target: int, width: int, first: int, stop: int) -> np.ndarray:
    """Resamples with torchaudio, over a piece with margins that begins on the common grid of both rates."""
    import torch

    margin = math.ceil(width / source) + 1
    block = max(0, first // target - margin)
    piece = read(block * source, (math.ceil(stop / target) + margin) * source)
    if not len(piece):
        return piece
    done = _kernels(source, target)(torch.from_numpy(piece)).numpy()
    return np.ascontiguousarray(done[first - block * target : stop - block * target])


@functools.lru_cache(maxsize=16)
def _kernels(source: int, target: int) -> Resample:
    import torch
    from torchaudio.transforms import Resample

    double = Resample(source, target, lowpass_filter_width=_ZEROS, rolloff=_ROLLOFF, dtype=torch.float64)
    return double.float()  # computed in float32, its phases would be off by up to 2e-5


def _by_sample(read: Read, source: int, target: int, width: int, first: int, stop: int) -> np.ndarray:
    """Computes a filter of ``2 * width + 1`` taps for each output sample, around its position in the source."""
    start = max(0, first * source // target - width)
    piece = read(start, stop * source // target + width + 1)
    stop = min(stop, math.ceil((start + len(piece)) * target / source))
    if not len(piece) or stop <= first:
        return np.zeros(0, np.float32)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(piece, width), 2 * width + 1)
    scale = min(source, target) * _ROLLOFF / source
    step = max(1, _CHUNK // (2 * width + 1))
    chunks = []
    for begin in range(first, stop, step):
        places = np.arange(begin, min(begin + step, stop), dtype=np.int64) * source
        t = (np.arange(-width, width + 1) - (places % target / target)[:, None]) * scale
        np.clip(t, -_ZEROS, _ZEROS, out=t)
        taps = np.sinc(t) * np.cos(t * (np.pi / (2 * _ZEROS))) ** 2 * scale
        chunks.append(np.einsum("nk,nk->n", taps, around[places // target - start]))
    return np.concatenate(chunks).astype(np.float32)
