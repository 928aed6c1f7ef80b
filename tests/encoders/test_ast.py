"""The Audio Spectrogram Transformer equals its own feature extractor and model, in grid order."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.errors import ConfigError, SampleError
from pipeline.encoders import ast
from pipeline.encoders._shared import audio
from pipeline.encoders._shared.kaldi import log_mel
from pipeline.encoders.ast import AstConfig, AstEncoder
from pipeline.encoders.base import Encoded
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
STEPS, BANDS = 25, 5
"""Of the small checkpoint: (256 - 16) // 10 + 1 and (64 - 16) // 10 + 1."""


@cache
def _loaded() -> tuple[Any, Any]:
    from transformers import ASTFeatureExtractor, ASTModel

    path = checkpoint("ast").path
    return ASTFeatureExtractor.from_pretrained(path), ASTModel.from_pretrained(path).eval()


def _reference(wave: np.ndarray) -> tuple[Any, Any, Any]:
    """Pooled [d], prefix [2, d] and the whole grid [T, F, d], each patch identified by its input.

    The order of the patches is not taken from the model's code: one patch of the spectrogram is
    changed at a time, before the transformer, and the patch embedding that changes is that one.
    """
    import torch

    extractor, model = _loaded()
    values = extractor(wave, sampling_rate=RATE, return_tensors="pt").input_values
    with torch.inference_mode():
        output = model(values)
    states = output.last_hidden_state[0]
    grid = torch.stack([torch.stack([states[2 + _order()[t, f]] for f in range(BANDS)]) for t in range(STEPS)])
    return output.pooler_output[0], states[:2], grid


@cache
def _order() -> np.ndarray:
    """[T, F]: index among the model's patches of the patch at time step t and band f."""
    import torch

    _, model = _loaded()
    order = np.zeros((STEPS, BANDS), int)
    silent = torch.zeros(1, 256, 64)
    with torch.inference_mode():
        base = model.embeddings.patch_embeddings(silent)[0]
        for t in range(STEPS):
            for f in range(BANDS):
                touched = silent.clone()
                touched[0, 10 * t + 8, 10 * f + 8] = 1.0  # no other patch's: strides of 10, patches of 16
                distance = (model.embeddings.patch_embeddings(touched)[0] - base).abs().amax(-1)
                assert (distance > 0).sum() == 1
                order[t, f] = int(distance.argmax())
    return order


def _steps(samples: int) -> int:
    """Time steps whose patch begins within the frames that Kaldi makes of so many samples."""
    import torch
    from torchaudio.compliance.kaldi import fbank

    frames = len(fbank(torch.zeros(1, samples), sample_frequency=RATE, num_mel_bins=64))
    return min(STEPS, sum(1 for step in range(STEPS) if 10 * step < frames))


def test_tokens_and_pooled_equal_the_reference(data: Path) -> None:
    waves = sounds(data, RATE)
    references = [_reference(wave) for wave in waves]
    encoder = build_encoder(AstEncoder, AstConfig, checkpoint("ast"), "audio")
    seen = set()
    for what, rows in orders(encoder, waveform_inputs(waves, RATE)):
        for row, wave, (pooled, prefix, grid) in zip(rows, waves, references, strict=True):
            steps = _steps(len(wave))
            seen.add(steps)
            assert row.grid == (steps, BANDS, 1)
            assert_close(row.tokens, grid[:steps].flatten(0, 1), what)
            assert_close(row.prefix_tokens, prefix, what)
            assert_close(row.pooled, pooled, what)
            np.testing.assert_allclose(row.times_s, 0.1 * np.arange(steps), atol=1e-12)
    assert min(seen) < 4
    assert max(seen) == STEPS


def test_long_sound_may_go_in_chunks(data: Path) -> None:
    span = 256 * 160
    wave = sound(data, "ljspeech__LJ001-0003.flac", RATE)[: 2 * span + 8000]
    chunks = [wave[:span], wave[span : 2 * span], wave[2 * span :]]
    references = [_reference(chunk) for chunk in chunks]
    encoder = build_encoder(AstEncoder, AstConfig, checkpoint("ast"), "audio", long="chunk")
    (row,) = encoder.encode(waveform_inputs([wave], RATE, start_s=1.0), True)
    kept = [grid[: _steps(len(chunk))].flatten(0, 1) for (_, _, grid), chunk in zip(references, chunks, strict=True)]
    assert_close(row.tokens, np.concatenate(kept), "chunks")
    assert_close(row.prefix_tokens, np.concatenate([prefix for _, prefix, _ in references]), "chunks")
    assert_close(row.pooled, np.mean([pooled.numpy() for pooled, _, _ in references], axis=0), "chunks")
    starts = np.concatenate([1.0 + 2.56 * i + 0.1 * np.arange(len(tokens) // BANDS) for i, tokens in enumerate(kept)])
    np.testing.assert_allclose(row.times_s, starts, atol=1e-9)


def test_of_a_long_sound_only_what_is_kept_is_made_into_a_spectrogram(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seconds and gigabytes for hours of sound; the values are the same bits."""
    heard_of: list[np.ndarray] = []
    monkeypatch.setattr(ast, "log_mel", lambda sounds, *args: heard_of.extend(sounds) or log_mel(sounds, *args))
    wave = sound(data, "ljspeech__LJ001-0003.flac", RATE)
    encoder = build_encoder(AstEncoder, AstConfig, checkpoint("ast"), "audio")
    encoder.encode(waveform_inputs([wave], RATE), True)
    (cut,) = heard_of
    assert len(cut) < 257 * 160 + 400 < len(wave)
    extractor, _ = _loaded()
    kept, reference = (audio.extract(extractor, samples)["input_values"] for samples in (cut, wave))
    np.testing.assert_array_equal(kept, reference)


def test_features_are_those_of_the_extractor_bit_for_bit(data: Path) -> None:
    """Of sounds shorter and longer than the model's span; also where the checkpoint names another extractor."""
    names = ("fsdd__1_theo_0.wav", "ljspeech__LJ001-0003.flac")
    waves = [wave for name in names if len(wave := sound(data, name, RATE)) >= 400]
    encoder = build_encoder(AstEncoder, AstConfig, checkpoint("ast"), "audio")
    encoder.setup()
    extractor, _ = _loaded()
    expected = np.concatenate([audio.extract(extractor, wave)["input_values"] for wave in waves])
    np.testing.assert_array_equal(encoder._features(waves), expected)
    encoder.extractor = type("Other", (type(extractor),), {})(**extractor.to_dict())
    np.testing.assert_array_equal(encoder._features(waves), expected)


def test_too_short_a_sound_fails_alone(data: Path) -> None:
    wave = sound(data, "fsdd__1_theo_2.wav", RATE)
    encoder = build_encoder(AstEncoder, AstConfig, checkpoint("ast"), "audio")
    rows = encoder.encode(waveform_inputs([wave[:399], wave, wave[:400]], RATE), True)
    assert [type(row) for row in rows] == [SampleError, Encoded, Encoded]
    assert rows[0].kind == "empty"
    assert_close(rows[1].pooled, _reference(wave)[0], "neighbour")
    assert rows[2].grid == (1, BANDS, 1)


def test_a_last_chunk_without_a_frame_is_left_out(data: Path) -> None:
    span = 256 * 160
    wave = sound(data, "ljspeech__LJ001-0003.flac", RATE)[: span + 300]
    encoder = build_encoder(AstEncoder, AstConfig, checkpoint("ast"), "audio", long="chunk")
    (row,) = encoder.encode(waveform_inputs([wave], RATE), True)
    assert row.grid == (STEPS, BANDS, 1)


def test_bfloat16_and_the_spec(data: Path) -> None:
    rows = waveform_inputs(sounds(data, RATE)[:2], RATE)
    exact = build_encoder(AstEncoder, AstConfig, checkpoint("ast"), "audio")
    rough = build_encoder(AstEncoder, AstConfig, checkpoint("ast"), "audio", dtype="bfloat16")
    for a, b in zip(exact.encode(rows, True), rough.encode(rows, True), strict=True):
        assert b.tokens.dtype == b.pooled.dtype == np.float32
        assert 0 < np.abs(a.pooled - b.pooled).max() < 0.3
    spec = exact.spec()
    assert (spec.dim, spec.token_dim, spec.normalized, spec.processor) == (32, 32, False, "ASTFeatureExtractor")


def test_config_errors_name_their_place(tmp_path: Path) -> None:
    def encoder(where: Any, **options: Any) -> AstEncoder:
        config = AstConfig(kind="ast", checkpoint=where.path)
        return AstEncoder(config, where, "audio", AudioFrameConfig(kind="audio_frame", **options))

    with pytest.raises(ConfigError, match=r"encoder\.checkpoint.*'whisper'"):
        encoder(checkpoint("whisper")).check("features.x")
    with pytest.raises(ConfigError, match=r"features\.x\.tokenizer\.sample_rate"):
        encoder(checkpoint("ast"), sample_rate=48000).check("features.x")
    with pytest.raises(ConfigError, match=r"encoder\.checkpoint.*feature extractor"):
        encoder(copy("ast", tmp_path, without=["preprocessor_config.json"])).check("features.x")
    (tmp_path / "other").mkdir()
    with pytest.raises(ConfigError, match=r"frames 1024.*256"):
        encoder(changed("ast", tmp_path / "other", "preprocessor_config.json", max_length=1024)).check("features.x")
