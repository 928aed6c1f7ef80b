"""Resamples windows of a sound with torchaudio's windowed sinc, in bounded memory for any pair of rates.

Neighbouring windows join exactly. The filter has one phase for each sample of the target within the two rates' common
grid: 160 for 44,100 Hz to 16,000 Hz. torchaudio computes all phases as one convolution, whose filters are mostly zeros.
Here a few neighbouring phases are one matrix product over the source samples that they read, with the same values.

A pair such as 44,101 Hz and 16,000 Hz has thousands of phases, whose filters would take gigabytes. For such pairs the
filter of each output sample is computed when it is needed, with the same formula.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np

_ZEROS = 6
"""Zero crossings of the filter on each side, as torchaudio's default."""
_ROLLOFF = 0.99
_MAX_KERNEL = 1 << 20
_GROUP = 16
"""Phases of one matrix product: for fewer it has too few columns, for more too many zeros."""
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
    """Resamples a piece with margins that begins on the common grid of both rates."""
    taps = math.ceil(_GROUP * source / target) + 2 * width + 2
    repeats = max(math.ceil(_GROUP / target), math.ceil(taps / source))  # BLAS takes no rows that overlap
    source, target = source * repeats, target * repeats
    margin = math.ceil(width / source) + 1
    block = max(0, first // target - margin)
    piece = read(block * source, (math.ceil(stop / target) + margin) * source)
    if not len(piece):
        return piece
    grids = len(piece) // source + 1
    padded = np.zeros((grids + 1) * source + 2 * width, np.float32)
    padded[width : width + len(piece)] = piece
    done = np.empty((grids, target), np.float32)
    step = padded.strides[0]
    for phase, start, filters in _filters(source, target, width):
        shape, strides = (grids, len(filters)), (source * step, step)
        read_by_group = np.lib.stride_tricks.as_strided(padded[start:], shape, strides, writeable=False)
        with np.errstate(invalid="ignore"):  # samples that are no numbers: the caller looks for them
            np.matmul(read_by_group, filters, out=done[:, phase : phase + filters.shape[1]])
    end = math.ceil(np.float32(len(piece) * target / source))  # in single precision, as torchaudio
    return done.reshape(-1)[first - block * target : min(end, stop - block * target)].copy()


@functools.lru_cache(maxsize=16)
def _filters(source: int, target: int, width: int) -> list[tuple[int, int, np.ndarray]]:
    """Returns for each group of phases the first phase, the first sample that it reads, and its filters.

    The samples are counted from ``width`` before the grid's first one. The filters are float32 [taps, phases].
    """
    groups = []
    for phase in range(0, target, _GROUP):
        places = np.arange(phase, min(phase + _GROUP, target)) * (source / target)
        start, stop = math.floor(places[0]), math.ceil(places[-1]) + 2 * width + 1
        taps = _taps(np.arange(start, stop)[None, :] - width - places[:, None], source, target)
        groups.append((phase, start, np.ascontiguousarray(taps.T.astype(np.float32))))
    return groups


def _taps(distances: np.ndarray, source: int, target: int) -> np.ndarray:
    """Returns the filter at some distances from its centre, in source samples; float64.

    Source: ``torchaudio.functional.functional._get_sinc_resample_kernel``, with its default Hann window.
    """
    scale = min(source, target) * _ROLLOFF / source
    t = np.clip(distances * scale, -_ZEROS, _ZEROS)
    taps: np.ndarray = np.sinc(t) * np.cos(t * (np.pi / (2 * _ZEROS))) ** 2 * scale
    return taps


def _by_sample(read: Read, source: int, target: int, width: int, first: int, stop: int) -> np.ndarray:
    """Computes a filter of ``2 * width + 1`` taps for each output sample, around its position in the source."""
    start = max(0, first * source // target - width)
    piece = read(start, stop * source // target + width + 1)
    stop = min(stop, math.ceil((start + len(piece)) * target / source))
    if not len(piece) or stop <= first:
        return np.zeros(0, np.float32)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(piece, width), 2 * width + 1)
    step = max(1, _CHUNK // (2 * width + 1))
    chunks = []
    for begin in range(first, stop, step):
        places = np.arange(begin, min(begin + step, stop), dtype=np.int64) * source
        taps = _taps(np.arange(-width, width + 1) - (places % target / target)[:, None], source, target)
        chunks.append(np.einsum("nk,nk->n", taps, around[places // target - start]))
    return np.concatenate(chunks).astype(np.float32)
