"""Log-mel features, bit for bit those of torchaudio."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchaudio.compliance.kaldi import fbank

from pipeline.encoders._shared.kaldi import frame_samples, log_mel


def _sounds(rate: int) -> list[np.ndarray]:
    """Of one frame, of several pieces of frames, loud, silent, and a tone."""
    dice = np.random.default_rng(rate)
    _, frame = frame_samples(rate)
    sizes = [frame, frame + 1, rate, 7 * rate + 13, 2 * rate]
    sounds = [dice.normal(0, 0.2, size).astype(np.float32) for size in sizes]
    tone = np.sin(np.arange(rate) * 440 * 2 * np.pi / rate).astype(np.float32)
    return [*sounds, 1000 * sounds[2], np.zeros(rate, np.float32), tone]


@pytest.mark.parametrize(("rate", "bins"), [(16000, 128), (16000, 64), (8000, 40), (22050, 80)])
def test_it_is_what_torchaudio_makes(rate: int, bins: int) -> None:
    sounds = _sounds(rate)
    before = [sound.copy() for sound in sounds]
    for sound, found in zip(sounds, log_mel(sounds, rate, bins), strict=True):
        options = {"sample_frequency": rate, "window_type": "hanning", "num_mel_bins": bins}
        expected = fbank(torch.from_numpy(sound)[None], **options).numpy()
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)
    for sound, one in zip(sounds, before, strict=True):
        np.testing.assert_array_equal(sound, one)


def test_a_waveform_has_the_same_features_beside_others() -> None:
    sounds = _sounds(16000)
    for sound, together in zip(sounds, log_mel(sounds, 16000, 128), strict=True):
        np.testing.assert_array_equal(log_mel([sound], 16000, 128)[0], together)
