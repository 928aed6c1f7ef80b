"""Wav2Vec2, HuBERT and WavLM equal their own feature extractor and model, one sound at a time."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.errors import ConfigError, SampleError
from pipeline.encoders.base import Encoded
from pipeline.encoders.wav2vec2 import Wav2Vec2Config, Wav2Vec2Encoder
from pipeline.tokenizers.audio_frame import AudioFrameConfig
from pipeline.tokenizers.text import TextTokenizerConfig
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

NAMES = ("wav2vec2", "wav2vec2_layer", "hubert", "wavlm")
RATE = 16000


@cache
def _loaded(name: str) -> tuple[Any, Any]:
    from transformers import AutoFeatureExtractor, AutoModel

    path = checkpoint(name).path
    return AutoFeatureExtractor.from_pretrained(path), AutoModel.from_pretrained(path).eval()


def _reference(name: str, wave: np.ndarray) -> Any:
    import torch

    extractor, model = _loaded(name)
    values = extractor(wave, sampling_rate=RATE, return_tensors="pt").input_values
    with torch.inference_mode():
        return model(values).last_hidden_state[0]


@pytest.mark.parametrize("name", NAMES)
def test_tokens_and_mean_equal_the_reference(name: str, data: Path) -> None:
    waves = sounds(data, RATE)
    references = [_reference(name, wave) for wave in waves]
    encoder = build_encoder(Wav2Vec2Encoder, Wav2Vec2Config, checkpoint(name), "audio")
    for what, rows in orders(encoder, waveform_inputs(waves, RATE)):
        for row, reference in zip(rows, references, strict=True):
            assert_close(row.tokens, reference, what)
            assert_close(row.pooled, reference.mean(0), what)
            assert row.grid == (len(reference), 1, 1)


@pytest.mark.parametrize("name", NAMES)
def test_windows_of_equal_length_share_batches(name: str, data: Path) -> None:
    long = sound(data, "ljspeech__LJ001-0003.flac", RATE)
    waves = [long[start : start + RATE] for start in range(0, 5 * RATE, RATE)]
    batches: list[int] = []
    encoder = build_encoder(Wav2Vec2Encoder, Wav2Vec2Config, checkpoint(name), "audio")
    forward = encoder.forward
    encoder.forward = lambda rows, want: batches.append(len(rows)) or forward(rows, want)
    for row, wave in zip(encoder.encode(waveform_inputs(waves, RATE), True), waves, strict=True):
        assert_close(row.tokens, _reference(name, wave), name)
    assert batches == [5]


def test_only_layer_norm_models_are_padded(data: Path) -> None:
    """Group norm depends on the padded length: if rows were padded, they would differ by far."""
    waves = sounds(data, RATE)
    batches: list[int] = []
    for name in ("wav2vec2", "wav2vec2_layer"):
        encoder = build_encoder(Wav2Vec2Encoder, Wav2Vec2Config, checkpoint(name), "audio")
        forward = encoder.forward
        encoder.forward = lambda rows, want, run=forward: batches.append(len(rows)) or run(rows, want)
        encoder.encode(waveform_inputs(waves, RATE), False)
    assert batches == [1] * len(waves) + [len(waves)]


@pytest.mark.parametrize("name", ["wav2vec2", "wav2vec2_layer"])
def test_a_sound_that_is_too_long_fails_alone(name: str, data: Path) -> None:
    waves = [sound(data, "ljspeech__LJ001-0003.flac", RATE)[: int(seconds * RATE)] for seconds in (1.0, 3.1, 2.0)]
    encoder = build_encoder(Wav2Vec2Encoder, Wav2Vec2Config, checkpoint(name), "audio", max_s=3.0)
    for _, (first, long, last) in orders(encoder, waveform_inputs(waves, RATE)):
        assert isinstance(long, SampleError)
        assert (long.kind, long.message) == (
            "limit",
            "3.1 s of sound, over max_s 3: cut shorter windows, or give a larger max_s",
        )
        assert_close(first.tokens, _reference(name, waves[0]), name)
        assert_close(last.tokens, _reference(name, waves[2]), name)


@pytest.mark.parametrize("name", NAMES)
def test_the_attention_of_wavlm_takes_shorter_sounds(name: str) -> None:
    encoder = build_encoder(Wav2Vec2Encoder, Wav2Vec2Config, checkpoint(name), "audio")
    assert encoder.max_s == (100 if name == "wavlm" else 300)


def test_a_forward_pass_holds_so_many_seconds(data: Path) -> None:
    """Rows of 0.2 s to 9.7 s: the long ones must not make all the others as long in one huge batch."""
    waves = sounds(data, RATE)
    encoder = build_encoder(Wav2Vec2Encoder, Wav2Vec2Config, checkpoint("wav2vec2_layer"), "audio", batch_s=8.0)
    shapes: list[tuple[int, int]] = []
    encoder.model.register_forward_pre_hook(lambda _, given: shapes.append(tuple(given[0].shape)))
    for row, wave in zip(encoder.encode(waveform_inputs(waves, RATE), True), waves, strict=True):
        assert_close(row.tokens, _reference("wav2vec2_layer", wave), "passes")
    assert sum(rows for rows, _ in shapes) == len(waves)
    assert all(rows == 1 or rows * samples <= 8 * RATE for rows, samples in shapes)
    assert max(rows for rows, _ in shapes) > 1


def test_one_second_gives_49_tokens_20_ms_apart(data: Path) -> None:
    wave = sound(data, "ljspeech__LJ001-0003.flac", RATE)[:RATE]
    encoder = build_encoder(Wav2Vec2Encoder, Wav2Vec2Config, checkpoint("wav2vec2"), "audio")
    (row,) = encoder.encode(waveform_inputs([wave], RATE, start_s=2.5), True)
    assert row.grid == (49, 1, 1)
    np.testing.assert_allclose(row.times_s, 2.5 + 0.02 * np.arange(49), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_too_short_a_sound_fails_alone(name: str, data: Path) -> None:
    wave = sound(data, "fsdd__1_theo_2.wav", RATE)
    encoder = build_encoder(Wav2Vec2Encoder, Wav2Vec2Config, checkpoint(name), "audio")
    rows = encoder.encode(waveform_inputs([wave, wave[:399], wave[:400], wave[:1]], RATE), True)
    assert [type(row) for row in rows] == [Encoded, SampleError, Encoded, SampleError]
    assert rows[1].kind == "empty"
    assert "399 samples" in str(rows[1])
    assert "400" in str(rows[1])
    assert_close(rows[0].tokens, _reference(name, wave), name)
    assert_close(rows[2].tokens, _reference(name, wave[:400]), name)


@pytest.mark.parametrize("name", ["wav2vec2", "wavlm"])
def test_bfloat16_is_near_float32(name: str, data: Path) -> None:
    rows = waveform_inputs(sounds(data, RATE)[:3], RATE)
    exact = build_encoder(Wav2Vec2Encoder, Wav2Vec2Config, checkpoint(name), "audio").encode(rows, True)
    rough = build_encoder(Wav2Vec2Encoder, Wav2Vec2Config, checkpoint(name), "audio", dtype="bfloat16").encode(
        rows, True
    )
    for a, b in zip(exact, rough, strict=True):
        assert b.tokens.dtype == np.float32
        assert 0 < np.abs(a.pooled - b.pooled).max() < 0.3


def test_spec_and_times_of_an_adapter(tmp_path: Path, data: Path) -> None:
    """An adapter makes tokens fewer and of another width."""
    from transformers import AutoModel, Wav2Vec2Model
    from transformers import Wav2Vec2Config as TransformersConfig

    where = copy("wav2vec2_layer", tmp_path, without=["model.safetensors", "config.json"])
    config = TransformersConfig.from_pretrained(
        checkpoint("wav2vec2_layer").path, add_adapter=True, output_hidden_size=24, num_adapter_layers=2
    )
    Wav2Vec2Model(config).save_pretrained(tmp_path)
    encoder = build_encoder(Wav2Vec2Encoder, Wav2Vec2Config, where, "audio")
    assert (encoder.spec().dim, encoder.spec().token_dim) == (24, 24)
    waves = sounds(data, RATE)[:3]
    extractor, _ = _loaded("wav2vec2_layer")
    model = AutoModel.from_pretrained(tmp_path).eval()
    for row, wave in zip(encoder.encode(waveform_inputs(waves, RATE), True), waves, strict=True):
        reference = model(extractor(wave, sampling_rate=RATE, return_tensors="pt").input_values).last_hidden_state[0]
        assert_close(row.tokens, reference.detach(), "adapter")
        np.testing.assert_allclose(row.times_s, 0.08 * np.arange(len(reference)))


def test_config_errors_name_their_place(tmp_path: Path) -> None:
    def encoder(where: Any, tokenizer: Any = None) -> Wav2Vec2Encoder:
        config = Wav2Vec2Config(kind="wav2vec2", checkpoint=where.path)
        return Wav2Vec2Encoder(config, where, "audio", tokenizer or AudioFrameConfig(kind="audio_frame"))

    with pytest.raises(ConfigError, match=r"encoder\.checkpoint.*'bert'"):
        encoder(checkpoint("bert")).check("features.x")
    with pytest.raises(ConfigError, match=r"features\.x\.tokenizer\.kind"):
        encoder(checkpoint("hubert"), TextTokenizerConfig(kind="text")).check("features.x")
    with pytest.raises(ConfigError, match=r"features\.x\.tokenizer\.sample_rate.*8000.*16000"):
        encoder(checkpoint("hubert"), AudioFrameConfig(kind="audio_frame", sample_rate=8000)).check("features.x")
    with pytest.raises(ConfigError, match=r"encoder\.checkpoint.*feature extractor"):
        encoder(copy("hubert", tmp_path, without=["preprocessor_config.json"])).check("features.x")
    (tmp_path / "other").mkdir()
    with pytest.raises(ConfigError, match="weights are missing"):
        encoder(changed("hubert", tmp_path / "other", "config.json", num_hidden_layers=3)).setup()
