"""A waveform is asked for at the model's own rate and handed on as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.core.errors import ConfigError, SampleError
from pipeline.core.media import Waveform, WaveformRequest
from pipeline.tokenizers.audio_frame import AudioFrameConfig, AudioFrameTokenizer
from tests.encoders.sound_fixtures import checkpoint, copy


def _tokenizer(name: str | None, **options: float) -> AudioFrameTokenizer:
    where = None if name is None else checkpoint(name)
    return AudioFrameTokenizer(AudioFrameConfig(kind="audio_frame", **options), where)


@pytest.mark.parametrize(("name", "rate"), [("wav2vec2", 16000), ("whisper", 16000), ("ast", 16000), ("clap", 48000)])
def test_the_rate_is_the_feature_extractors(name: str, rate: int) -> None:
    tokenizer = _tokenizer(name)
    tokenizer.check("features.x.tokenizer")
    assert tokenizer.request() == WaveformRequest(rate)


def test_without_a_checkpoint_the_config_gives_the_rate() -> None:
    tokenizer = _tokenizer(None, sample_rate=22050)
    tokenizer.check("features.x.tokenizer")
    assert tokenizer.request() == WaveformRequest(22050)


def test_samples_and_start_go_on_unchanged() -> None:
    samples = np.linspace(-1, 1, 50, dtype=np.float32)
    prepared = _tokenizer("whisper").tokenize(Waveform(samples, 16000, 7.25))
    assert list(prepared.inputs) == ["waveform"]
    assert prepared.inputs["waveform"].dtype == np.float32
    np.testing.assert_array_equal(prepared.inputs["waveform"], samples)
    np.testing.assert_array_equal(prepared.times_s, [7.25])


def test_no_samples_is_empty() -> None:
    with pytest.raises(SampleError) as caught:
        _tokenizer("whisper").tokenize(Waveform(np.zeros(0, np.float32), 16000, 0.0))
    assert caught.value.kind == "empty"


def test_a_rate_that_the_extractor_leaves_to_its_class(tmp_path: Path) -> None:
    where = copy("whisper", tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"feature_extractor_type": "WhisperFeatureExtractor"}')
    assert AudioFrameTokenizer(AudioFrameConfig(kind="audio_frame"), where).request() == WaveformRequest(16000)


def test_config_errors_name_their_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"features\.x\.tokenizer\.sample_rate.*not given"):
        _tokenizer(None).check("features.x.tokenizer")
    with pytest.raises(ConfigError, match=r"features\.x\.tokenizer\.sample_rate.*8000.*48000"):
        _tokenizer("clap", sample_rate=8000).check("features.x.tokenizer")
    with pytest.raises(ConfigError, match=r"features\.x\.tokenizer\.frame_s: 0\.01; only with encoder 'raw'"):
        _tokenizer("whisper", frame_s=0.01).check("features.x.tokenizer")
    bare = copy("whisper", tmp_path, without=["preprocessor_config.json"])
    with pytest.raises(ConfigError, match=r"features\.x\.encoder\.checkpoint.*no feature extractor"):
        AudioFrameTokenizer(AudioFrameConfig(kind="audio_frame"), bare).check("features.x.tokenizer")
    with pytest.raises(ConfigError, match="no feature extractor"):
        _tokenizer("bert").check("features.x.tokenizer")
