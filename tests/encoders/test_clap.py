"""CLAP's text and sound towers equal their own processor and model, one row at a time, in one space."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.errors import ConfigError
from pipeline.encoders.clap import ClapConfig, ClapEncoder
from pipeline.tokenizers.audio_frame import AudioFrameConfig
from pipeline.tokenizers.text import TextTokenizerConfig
from tests.encoders.sound_fixtures import (
    SOUNDS,
    assert_close,
    build_encoder,
    checkpoint,
    copy,
    orders,
    sound,
    texts,
    token_inputs,
    waveform_inputs,
)

RATE = 48000
SPAN = 10 * RATE


@cache
def _loaded(name: str) -> tuple[Any, Any]:
    from transformers import ClapModel, ClapProcessor

    path = checkpoint(name).path
    return ClapProcessor.from_pretrained(path), ClapModel.from_pretrained(path).eval()


def _heard_by_reference(name: str, wave: np.ndarray) -> tuple[Any, Any]:
    """Pooled [D] and the last stage [F, T, d] for up to 10 s, where the extractor draws nothing at random."""
    import torch

    assert len(wave) <= SPAN
    processor, model = _loaded(name)
    inputs = processor.feature_extractor(wave, sampling_rate=RATE, return_tensors="pt")
    with torch.inference_mode():
        output = model.get_audio_features(**inputs)
    return output.pooler_output[0], output.last_hidden_state[0].permute(1, 2, 0)


@cache
def _waves(data: Path) -> tuple[np.ndarray, ...]:
    return tuple(sound(data, name, RATE) for name in (*SOUNDS[:4], "mdn__guitar.ogg"))


@pytest.mark.parametrize("name", ["clap", "clap_fused"])
def test_sound_equals_the_reference(name: str, data: Path) -> None:
    """The last sound is longer than the span: its first 10 s count."""
    waves = _waves(data)
    assert len(waves[-1]) > 2 * SPAN
    references = [_heard_by_reference(name, wave[:SPAN]) for wave in waves]
    encoder = build_encoder(ClapEncoder, ClapConfig, checkpoint(name), "audio")
    for what, rows in orders(encoder, waveform_inputs(waves, RATE)):
        for row, wave, (pooled, states) in zip(rows, waves, references, strict=True):
            bands, steps, width = states.shape
            kept = min(steps, int(np.ceil(len(wave) * steps / SPAN)))
            assert_close(row.pooled, pooled, what)
            assert row.grid == (kept, bands, 1)
            assert_close(row.tokens.reshape(kept, bands, width), states.permute(1, 0, 2)[:kept], what)
            np.testing.assert_allclose(row.times_s, 10 / steps * np.arange(kept), atol=1e-9)


def test_the_time_axis_of_the_tokens_is_time() -> None:
    """A click moves the tokens at its time, and hardly those far from it."""
    encoder = build_encoder(ClapEncoder, ClapConfig, checkpoint("clap"), "audio")
    noise = np.random.default_rng(0).normal(0, 0.01, SPAN).astype(np.float32)
    for second in (1, 4, 9):
        clicked = noise.copy()
        clicked[second * RATE : second * RATE + 4800] += 0.5
        a, b = encoder.encode(waveform_inputs([noise, clicked], RATE), True)
        moved = np.abs(a.tokens - b.tokens).reshape(a.grid[0], -1).mean(1)
        assert abs(a.times_s[moved.argmax()] - second) < 0.5


def test_long_sound_may_be_pooled_over_equal_chunks(data: Path) -> None:
    wave = sound(data, "mdn__guitar.ogg", RATE)
    third = len(wave) / 3
    chunks = np.array_split(wave, 3)
    references = [_heard_by_reference("clap", chunk) for chunk in chunks]
    encoder = build_encoder(ClapEncoder, ClapConfig, checkpoint("clap"), "audio", long="pool", batch_size=2)
    short = sound(data, SOUNDS[0], RATE)
    row, other = encoder.encode(waveform_inputs([wave, short], RATE, start_s=2.0), True)
    assert_close(row.pooled, np.mean([pooled.numpy() for pooled, _ in references], axis=0), "pool")
    assert_close(other.pooled, _heard_by_reference("clap", short)[0], "short")
    assert row.grid[0] == len(row.times_s)
    assert np.all(np.diff(row.times_s) > 0)
    assert abs(row.times_s[row.grid[0] // 3] - 2.0 - third / RATE) < 0.1


def test_random_crops_are_pinned(data: Path) -> None:
    wave = sound(data, "mdn__guitar.ogg", RATE)
    for name in ("clap", "clap_fused"):
        encoder = build_encoder(ClapEncoder, ClapConfig, checkpoint(name), "audio")
        a, b = (encoder.encode(waveform_inputs([wave], RATE), False)[0] for _ in range(2))
        np.testing.assert_array_equal(a.pooled, b.pooled)


def test_text_equals_the_reference(data: Path) -> None:
    import torch

    processor, model = _loaded("clap")
    strings = texts(data)
    references = []
    for string in strings:
        inputs = processor.tokenizer(
            string, truncation=True, max_length=512, return_tensors="pt", return_special_tokens_mask=True
        )
        special = inputs.pop("special_tokens_mask")[0].bool()
        with torch.inference_mode():
            output = model.get_text_features(**inputs)
        references.append((inputs["input_ids"][0], special, output.pooler_output[0], output.last_hidden_state[0]))
    encoder = build_encoder(ClapEncoder, ClapConfig, checkpoint("clap"), "text")
    for what, rows in orders(encoder, token_inputs(strings, checkpoint("clap"))):
        for row, (ids, special, pooled, states) in zip(rows, references, strict=True):
            assert_close(row.pooled, pooled, what)
            assert_close(row.tokens, states[~special], what)
            assert_close(row.prefix_tokens, states[:1], what)
            np.testing.assert_array_equal(row.token_ids, ids[~special])
            assert row.grid == (int((~special).sum()), 1, 1)


def test_both_towers_share_one_space_and_one_model() -> None:
    audio_encoder = build_encoder(ClapEncoder, ClapConfig, checkpoint("clap"), "audio")
    text_encoder = build_encoder(ClapEncoder, ClapConfig, checkpoint("clap"), "text")
    assert audio_encoder.model is text_encoder.model
    assert audio_encoder.spec().space == text_encoder.spec().space == f"clap:{checkpoint('clap').weights_sha256()[:12]}"
    assert audio_encoder.spec().dim == text_encoder.spec().dim == 24
    assert audio_encoder.spec().normalized
    assert text_encoder.spec().normalized
    assert audio_encoder.spec().processor == "ClapFeatureExtractor"
    assert "Roberta" in text_encoder.spec().processor


def test_bfloat16_is_near_float32(data: Path) -> None:
    rows = waveform_inputs([sound(data, SOUNDS[0], RATE)], RATE)
    (a,) = build_encoder(ClapEncoder, ClapConfig, checkpoint("clap"), "audio").encode(rows, True)
    (b,) = build_encoder(ClapEncoder, ClapConfig, checkpoint("clap"), "audio", dtype="bfloat16").encode(rows, True)
    assert b.tokens.dtype == b.pooled.dtype == np.float32
    assert 0 < np.abs(a.pooled - b.pooled).max() < 0.1


def test_config_errors_name_their_place(tmp_path: Path) -> None:
    sounds, words = AudioFrameConfig(kind="audio_frame"), TextTokenizerConfig(kind="text")

    def encoder(where: Any, modality: Any, tokenizer: Any) -> ClapEncoder:
        return ClapEncoder(ClapConfig(kind="clap", checkpoint=where.path), where, modality, tokenizer)

    with pytest.raises(ConfigError, match=r"features\.x\.modality.*'image'"):
        encoder(checkpoint("clap"), "image", words).check("features.x")
    with pytest.raises(ConfigError, match=r"features\.x\.tokenizer\.kind"):
        encoder(checkpoint("clap"), "text", sounds).check("features.x")
    with pytest.raises(ConfigError, match=r"features\.x\.tokenizer\.kind"):
        encoder(checkpoint("clap"), "audio", words).check("features.x")
    wrong = AudioFrameConfig(kind="audio_frame", sample_rate=16000)
    with pytest.raises(ConfigError, match=r"features\.x\.tokenizer\.sample_rate.*48000"):
        encoder(checkpoint("clap"), "audio", wrong).check("features.x")
    bare = copy("clap", tmp_path, without=["tokenizer.json", "processor_config.json"])
    with pytest.raises(ConfigError, match=r"encoder\.checkpoint.*tokenizer"):
        encoder(bare, "text", words).check("features.x")
    with pytest.raises(ConfigError, match=r"encoder\.checkpoint.*feature extractor"):
        encoder(bare, "audio", sounds).check("features.x")
    (tmp_path / "mixed").mkdir()
    mixed = copy("clap", tmp_path / "mixed")
    fused = Path(checkpoint("clap_fused").path) / "processor_config.json"
    (tmp_path / "mixed" / "processor_config.json").write_bytes(fused.read_bytes())
    with pytest.raises(ConfigError, match="fusion"):
        encoder(mixed, "audio", sounds).check("features.x")
