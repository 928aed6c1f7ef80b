"""Resampling of windows, so that neighbours join: torchaudio's windowed sinc, in bounded memory for any pair of rates.

torchaudio keeps a filter for every phase between the two rates' common grid. Odd rates (44,101 Hz to 16,000 Hz)
have as many phases as hertz, and filters of gigabytes: there each output sample's filter is computed when it is
needed, by the same formula.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torchaudio.transforms import Resample

_ZEROS = 6  # zero crossings of torchaudio's filter, each side
_ROLLOFF = 0.99
_MAX_KERNEL = 1 << 20
_CHUNK = 1 << 20

Read = Callable[[int, int], np.ndarray]
"""float32 samples ``[start, stop)`` of a stream, ``start >= 0``; fewer where it ends."""


def resampled(read: Read, rate: int, sample_rate: int, first: int, stop: int) -> np.ndarray:
    """Samples ``[first, stop)`` of a stream at ``sample_rate``, float32; fewer where the stream ends.

    Sample n is at n / ``sample_rate`` seconds after the stream's first, whatever is asked for before or after.
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
    """torchaudio's own, over a piece that begins on the common grid of both rates, with margins."""
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
    return double.float()  # made in float32, its phases are off by up to 2e-5


def _by_sample(read: Read, source: int, target: int, width: int, first: int, stop: int) -> np.ndarray:
    """A filter for each output sample: ``2 * width + 1`` taps around its place in the source."""
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
