"""Kaldi's log-mel features of many waveforms, bit for bit those of ``torchaudio.compliance.kaldi.fbank``.

torchaudio makes the filters and the window again for each waveform, and copies its frames several times. Here they are
made once, and frames are processed in pieces that fit a CPU cache: half the time for a sound of five seconds.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

_SHIFT_MS, _FRAME_MS = 10.0, 25.0
_PREEMPHASIS, _LOWEST_HZ = 0.97, 20.0
_PIECE = 512
"""Frames that are processed at a time."""


def frame_samples(rate: int) -> tuple[int, int]:
    """Returns the samples between two frames, and those of a frame."""
    return int(rate * _SHIFT_MS * 0.001), int(rate * _FRAME_MS * 0.001)


def log_mel(waveforms: Sequence[np.ndarray], rate: int, bins: int) -> list[np.ndarray]:
    """Returns the features of each waveform, float32 [frames, bins].

    They are those of ``fbank(waveform, sample_frequency=rate, window_type="hanning", num_mel_bins=bins)``.

    Args:
        waveforms: float32 [samples], at least one frame each.
        rate: samples per second.
        bins: number of mel filters.
    """
    import torch

    shift, length = frame_samples(rate)
    filters, window = _filters(rate, bins, length)
    counts = [1 + (len(one) - length) // shift for one in waveforms]
    found = torch.empty(sum(counts), bins)
    frames, padded = torch.empty(_PIECE, length), torch.zeros(_PIECE, _fft_size(length))
    begin = 0
    for waveform, count in zip(waveforms, counts, strict=True):
        overlapping = torch.from_numpy(waveform).as_strided((count, length), (shift, 1))
        for start in range(0, count, _PIECE):
            piece = overlapping[start : start + _PIECE]
            n = len(piece)
            centred = torch.sub(piece, piece.mean(dim=1, keepdim=True), out=frames[:n])
            emphasized = padded[:n, :length]
            torch.mul(centred[:, :-1], -_PREEMPHASIS, out=emphasized[:, 1:])
            torch.mul(centred[:, :1], -_PREEMPHASIS, out=emphasized[:, :1])
            emphasized += centred
            emphasized *= window
            power = torch.fft.rfft(padded[:n]).abs().pow_(2.0)
            torch.mm(power, filters, out=found[begin + start : begin + start + n])
        begin += count
    found.clamp_min_(torch.finfo(torch.float32).eps).log_()
    return np.split(found.numpy(), np.cumsum(counts)[:-1])


@functools.lru_cache(maxsize=8)
def _filters(rate: int, bins: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the mel filters [frequencies, bins] and the window [length]."""
    import torch
    from torchaudio.compliance.kaldi import get_mel_banks

    filters, _ = get_mel_banks(bins, _fft_size(length), float(rate), _LOWEST_HZ, 0.0, 100.0, -500.0, 1.0)
    nyquist = torch.nn.functional.pad(filters, (0, 1))
    return nyquist.T, torch.hann_window(length, periodic=False)


def _fft_size(length: int) -> int:
    """Returns the next power of two."""
    return 1 << (length - 1).bit_length()
