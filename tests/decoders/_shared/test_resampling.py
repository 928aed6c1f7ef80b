from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
import torch
from torchaudio.functional import resample

from pipeline.decoders._shared import resampling
from pipeline.decoders._shared.resampling import resampled

USUAL = [(44100, 16000), (48000, 16000), (22050, 16000), (11025, 16000), (8000, 44100), (32000, 22050), (16000, 48000)]
ODD = [(44101, 16000), (192001, 16000), (3001, 16000), (44056, 16000), (16000, 22051), (767999, 8000), (7, 16000)]


def _wave(rate: int, seconds: float) -> np.ndarray:
    return np.random.default_rng(rate).normal(0, 0.3, round(rate * seconds)).astype(np.float32)


def _whole(wave: np.ndarray, rate: int, target: int) -> np.ndarray:
    """torchaudio over the whole wave, its filters in double precision."""
    return resample(torch.from_numpy(wave).double(), rate, target).numpy()


@pytest.mark.parametrize(("rate", "target"), USUAL)
@pytest.mark.parametrize("by_sample", [False, True])
def test_both_ways_are_torchaudio(rate: int, target: int, by_sample: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if by_sample:
        monkeypatch.setattr(resampling, "_MAX_KERNEL", 0)
    wave = _wave(rate, 3.0)
    found = resampled(lambda a, b: wave[a:b], rate, target, 0, 10**8)
    expected = _whole(wave, rate, target)
    assert found.dtype == np.float32
    assert len(found) == len(expected)
    assert np.abs(found - expected).max() < 1e-6


@pytest.mark.parametrize("samples", [44_100 * 21 + 1, 44_100 * 33 - 7, 44_100 * 40 + 220, 2_000_003])
def test_a_long_sound_has_as_many_samples_as_torchaudio_makes(samples: int) -> None:
    """It counts them in single precision."""
    wave = np.zeros(samples, np.float32)
    found = resampled(lambda a, b: wave[a:b], 44_100, 16_000, 0, 10**8)
    assert len(found) == len(resample(torch.from_numpy(wave), 44_100, 16_000))


def test_an_odd_rate_is_what_torchaudio_makes_of_it() -> None:
    wave = _wave(3001, 1.0)
    found = resampled(lambda a, b: wave[a:b], 3001, 2000, 0, 10**8)
    expected = _whole(wave, 3001, 2000)
    assert len(found) == len(expected)
    assert np.abs(found - expected).max() < 1e-6


@pytest.mark.parametrize(("rate", "target"), [*ODD, *USUAL])
def test_pieces_join_to_the_whole(rate: int, target: int) -> None:
    wave = _wave(rate, 2.0 if rate > 1000 else 60.0)
    whole = resampled(lambda a, b: wave[a:b], rate, target, 0, 10**8)
    cuts = [0, 1, 17, len(whole) // 3, len(whole) // 2 + 5, len(whole) - 1, len(whole) + 400]
    pieces = [resampled(lambda a, b: wave[a:b], rate, target, a, b) for a, b in itertools.pairwise(cuts)]
    joined = np.concatenate(pieces)
    assert len(joined) == len(whole)
    assert np.abs(joined - whole).max() < 1e-6
    assert not len(resampled(lambda a, b: wave[a:b], rate, target, len(whole) + 1, len(whole) + 9))


@pytest.mark.parametrize(("rate", "target"), [(44101, 16000), (767999, 16000)])
def test_a_tone_of_an_odd_rate_stays_a_tone(rate: int, target: int) -> None:
    t = np.arange(rate) / rate
    wave = np.sin(2 * np.pi * 440 * t).astype(np.float32)
    found = resampled(lambda a, b: wave[a:b], rate, target, 0, target)
    expected = np.sin(2 * np.pi * 440 * np.arange(target) / target)
    assert np.abs(found - expected)[100:-100].max() < 2e-3


def test_memory_is_bounded_whatever_the_rates() -> None:
    """torchaudio's filters for this pair would take 4 TB."""
    wave = _wave(767999, 1.0)
    resampled(lambda a, b: wave[a:b], 767999, 16001, 0, 100)
    tracemalloc.start()
    try:
        found = resampled(lambda a, b: wave[a:b], 767999, 16001, 0, 16001)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found) == 16001
    assert peak < 100e6


def test_filters_are_made_once_for_a_pair() -> None:
    resampling._filters.cache_clear()
    wave = _wave(44100, 1.0)
    for _ in range(5):
        resampled(lambda a, b: wave[a:b], 44100, 16000, 0, 16000)
        resampled(lambda a, b: wave[a:b], 88200, 32000, 0, 16000)  # the same ratio
    assert resampling._filters.cache_info().misses == 1
