"""Whisper's encoder equals its own feature extractor and model, trimmed to the span that has sound."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.errors import ConfigError
from pipeline.encoders.whisper import WhisperConfig, WhisperEncoder
from pipeline.tokenizers.audio_frame import AudioFrameConfig
from tests.encoders.sound_fixtures import (
    assert_close,
    build_encoder,
    changed,
    checkpoint,
    copy,
    orders,
    sound,
    sounds,
    waveform_inputs,
)

RATE = 16000


@cache
def _loaded() -> tuple[Any, Any]:
    from transformers import WhisperFeatureExtractor, WhisperModel

    path = checkpoint("whisper").path
    return WhisperFeatureExtractor.from_pretrained(path), WhisperModel.from_pretrained(path).eval()


def _reference(wave: np.ndarray) -> Any:
    """All 1500 states of the encoder, for up to 30 s."""
    import torch

    extractor, model = _loaded()
    features = extractor(wave, sampling_rate=RATE, return_tensors="pt").input_features
    with torch.inference_mode():
        return model.encoder(features).last_hidden_state[0]


def test_tokens_and_mean_equal_the_reference(data: Path) -> None:
    waves = sounds(data, RATE)
    references = [_reference(wave)[: math.ceil(len(wave) / 320)] for wave in waves]
    encoder = build_encoder(WhisperEncoder, WhisperConfig, checkpoint("whisper"), "audio")
    for what, rows in orders(encoder, waveform_inputs(waves, RATE)):
        for row, reference in zip(rows, references, strict=True):
            assert_close(row.tokens, reference, what)
            assert_close(row.pooled, reference.mean(0), what)
            assert row.grid == (len(reference), 1, 1)
            np.testing.assert_allclose(row.times_s, 0.02 * np.arange(len(reference)), atol=1e-12)


def test_sound_longer_than_30_s_goes_in_chunks_of_30_s(data: Path) -> None:
    wave = sound(data, "moviepy__rain.mp3", RATE)
    assert 60 * RATE < len(wave) < 61 * RATE
    chunks = [wave[: 30 * RATE], wave[30 * RATE : 60 * RATE], wave[60 * RATE :]]
    whole = np.concatenate([_reference(chunk)[: math.ceil(len(chunk) / 320)] for chunk in chunks])
    encoder = build_encoder(WhisperEncoder, WhisperConfig, checkpoint("whisper"), "audio", batch_size=2)
    (row,) = encoder.encode(waveform_inputs([wave], RATE, start_s=5.0), True)
    assert_close(row.tokens, whole, "chunks")
    assert_close(row.pooled, whole.mean(0), "chunks")
    np.testing.assert_allclose(row.times_s, 5.0 + 0.02 * np.arange(math.ceil(len(wave) / 320)), atol=1e-9)


def test_long_sound_may_be_truncated(data: Path) -> None:
    wave = sound(data, "moviepy__rain.mp3", RATE)[: 31 * RATE]
    encoder = build_encoder(WhisperEncoder, WhisperConfig, checkpoint("whisper"), "audio", long="truncate")
    (row,) = encoder.encode(waveform_inputs([wave], RATE), True)
    assert_close(row.tokens, _reference(wave), "the extractor itself cuts after 30 s")
    assert row.grid == (1500, 1, 1)


def test_without_tokens_only_the_mean_comes(data: Path) -> None:
    wave = sound(data, "fsdd__1_theo_2.wav", RATE)
    encoder = build_encoder(WhisperEncoder, WhisperConfig, checkpoint("whisper"), "audio")
    (row,) = encoder.encode(waveform_inputs([wave], RATE), False)
    assert row.tokens is None
    assert_close(row.pooled, _reference(wave)[: math.ceil(len(wave) / 320)].mean(0), "mean")


def test_one_sample_is_one_token() -> None:
    encoder = build_encoder(WhisperEncoder, WhisperConfig, checkpoint("whisper"), "audio")
    (row,) = encoder.encode(waveform_inputs([np.full(1, 0.5, np.float32)], RATE), True)
    assert row.grid == (1, 1, 1)


def test_dither_is_off(tmp_path: Path, data: Path) -> None:
    noisy = changed("whisper", tmp_path, "preprocessor_config.json", dither=0.1)
    wave = sound(data, "fsdd__1_theo_2.wav", RATE)
    (row,) = build_encoder(WhisperEncoder, WhisperConfig, noisy, "audio").encode(waveform_inputs([wave], RATE), True)
    assert_close(row.tokens, _reference(wave)[: math.ceil(len(wave) / 320)], "dither")


def test_bfloat16_and_the_spec(data: Path) -> None:
    rows = waveform_inputs(sounds(data, RATE)[:2], RATE)
    exact = build_encoder(WhisperEncoder, WhisperConfig, checkpoint("whisper"), "audio")
    rough = build_encoder(WhisperEncoder, WhisperConfig, checkpoint("whisper"), "audio", dtype="bfloat16")
    for a, b in zip(exact.encode(rows, True), rough.encode(rows, True), strict=True):
        assert b.tokens.dtype == b.pooled.dtype == np.float32
        assert 0 < np.abs(a.pooled - b.pooled).max() < 0.3
    spec = exact.spec()
    assert (spec.dim, spec.token_dim, spec.normalized) == (32, 32, False)
    assert spec.space == f"whisper:{checkpoint('whisper').weights_sha256()[:12]}:mean"
    assert spec.processor == "WhisperFeatureExtractor"


def test_config_errors_name_their_place(tmp_path: Path) -> None:
    def encoder(where: Any, **options: Any) -> WhisperEncoder:
        config = WhisperConfig(kind="whisper", checkpoint=where.path)
        return WhisperEncoder(config, where, "audio", AudioFrameConfig(kind="audio_frame", **options))

    with pytest.raises(ConfigError, match=r"encoder\.checkpoint.*'ast|audio-spectrogram"):
        encoder(checkpoint("ast")).check("features.x")
    with pytest.raises(ConfigError, match=r"features\.x\.tokenizer\.sample_rate.*44100"):
        encoder(checkpoint("whisper"), sample_rate=44100).check("features.x")
    with pytest.raises(ConfigError, match=r"encoder\.checkpoint.*feature extractor"):
        encoder(copy("whisper", tmp_path, without=["preprocessor_config.json"])).check("features.x")
    (tmp_path / "bins").mkdir()
    with pytest.raises(ConfigError, match=r"mel bins 128.*80"):
        encoder(changed("whisper", tmp_path / "bins", "preprocessor_config.json", feature_size=128)).check("features.x")
    (tmp_path / "span").mkdir()
    with pytest.raises(ConfigError, match=r"frames 1000.*3000"):
        encoder(
            changed("whisper", tmp_path / "span", "preprocessor_config.json", chunk_length=10, nb_max_frames=1000)
        ).check("features.x")
