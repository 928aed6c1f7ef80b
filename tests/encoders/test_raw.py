"""Raw tokens are the media's own values: laid out again they give the picture, the clip and the sound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.media import Frames, Image, Media, Modality, Text, Waveform
from pipeline.encoders.base import Encoded
from pipeline.encoders.raw import RawConfig, RawEncoder
from pipeline.tokenizers import build as build_tokenizer
from pipeline.tokenizers._shared.frame_sampling import UniformConfig
from pipeline.tokenizers.audio_frame import AudioFrameConfig
from pipeline.tokenizers.frame import FrameConfig
from pipeline.tokenizers.patch import PatchConfig
from pipeline.tokenizers.text import TextTokenizerConfig
from pipeline.tokenizers.tubelet import TubeletConfig
from tests.encoders.sound_fixtures import checkpoint, sound

SIZE, PATCH = 48, 16


def encoded(config: Any, modality: Modality, media: Media) -> tuple[Encoded, int | None]:
    tokenizer = build_tokenizer(config, None)
    tokenizer.check("features.x.tokenizer")
    tokenizer.setup()
    encoder = RawEncoder(RawConfig(kind="raw"), None, modality, config)
    encoder.check("features.x")
    encoder.setup()
    spec = encoder.spec()
    assert (spec.dim, spec.space) == (None, "raw")
    (done,) = encoder.encode([tokenizer.tokenize(media)], True)
    assert isinstance(done, Encoded)
    assert done.pooled is None
    return done, spec.token_dim


def square(picture: np.ndarray) -> np.ndarray:
    """Shorter edge to SIZE, centre cut out, as Pillow does it in one step: [SIZE, SIZE, 3]."""
    import PIL.Image
    import PIL.ImageOps

    return np.asarray(PIL.ImageOps.fit(PIL.Image.fromarray(picture), (SIZE, SIZE), PIL.Image.Resampling.BICUBIC))


def test_patches_rebuild_the_picture(pictures: list[np.ndarray]) -> None:
    side = SIZE // PATCH
    for picture in pictures:
        done, width = encoded(PatchConfig(size=SIZE, patch_size=PATCH), "image", Image(picture))
        assert done.tokens is not None
        assert done.tokens.shape == (side * side, PATCH * PATCH * 3)
        assert (done.tokens.dtype, done.grid, width) == (np.float32, (1, side, side), PATCH * PATCH * 3)
        assert done.times_s is None
        canvas = np.zeros((SIZE, SIZE, 3), np.float32)
        for index, token in enumerate(done.tokens):
            top, left = divmod(index, side)
            canvas[top * PATCH :, left * PATCH :][:PATCH, :PATCH] = token.reshape(PATCH, PATCH, 3)
        np.testing.assert_array_equal(canvas, square(picture).astype(np.float32) / 255)


@pytest.mark.parametrize("whole", [True, False])
def test_frames_rebuild_the_clip(clips: list[Frames], whole: bool) -> None:
    patch = SIZE if whole else PATCH
    side = SIZE // patch
    config = FrameConfig(size=SIZE, patch_size=None if whole else PATCH, tokens="frame" if whole else "patch")
    for clip in clips:
        done, width = encoded(config, "video", clip)
        count = len(clip.pixels)
        assert done.tokens is not None
        assert (done.grid, width) == ((count, side, side), patch * patch * 3)
        np.testing.assert_array_equal(done.times_s, clip.times_s)
        canvas = np.zeros((count, SIZE, SIZE, 3), np.float32)
        for index, token in enumerate(done.tokens):
            time, place = divmod(index, side * side)
            top, left = divmod(place, side)
            canvas[time, top * patch :, left * patch :][:patch, :patch] = token.reshape(patch, patch, 3)
        np.testing.assert_array_equal(canvas, np.stack([square(f) for f in clip.pixels]).astype(np.float32) / 255)


def test_tubelets_rebuild_the_clip(clips: list[Frames]) -> None:
    side, depth = SIZE // PATCH, 2
    config = TubeletConfig(size=SIZE, patch_size=PATCH, tubelet_size=depth, sampling=UniformConfig(frames=8))
    for clip in clips:
        done, width = encoded(config, "video", clip)
        count = len(clip.pixels)
        assert done.tokens is not None
        assert (done.grid, width) == ((count // depth, side, side), depth * PATCH * PATCH * 3)
        np.testing.assert_array_equal(done.times_s, clip.times_s[::depth])
        canvas = np.zeros((count, SIZE, SIZE, 3), np.float32)
        for index, token in enumerate(done.tokens):
            time, place = divmod(index, side * side)
            top, left = divmod(place, side)
            block = canvas[time * depth : (time + 1) * depth, top * PATCH :, left * PATCH :]
            block[:, :PATCH, :PATCH] = token.reshape(depth, PATCH, PATCH, 3)
        np.testing.assert_array_equal(canvas, np.stack([square(f) for f in clip.pixels]).astype(np.float32) / 255)


@pytest.mark.parametrize("frame_s", [0.02, 0.0251])
def test_frames_of_samples_rebuild_the_sound(data: Path, frame_s: float) -> None:
    rate = 16000
    wave = sound(data, "fsdd__1_theo_2.wav", rate)
    config = AudioFrameConfig(kind="audio_frame", sample_rate=rate, frame_s=frame_s)
    done, width = encoded(config, "audio", Waveform(wave, rate, 7.25))
    assert done.tokens is not None
    assert done.times_s is not None
    assert width == round(rate * frame_s)
    assert done.grid == (len(done.tokens), 1, 1)
    laid = done.tokens.reshape(-1)
    np.testing.assert_array_equal(laid[: len(wave)], wave)
    assert 0 <= len(laid) - len(wave) < width
    assert not laid[len(wave) :].any()
    np.testing.assert_allclose(done.times_s, 7.25 + np.arange(len(done.tokens)) * width / rate)


def test_text_gives_the_ids_that_spell_it() -> None:
    from transformers import AutoTokenizer

    folder = checkpoint("roberta").path
    text = "A red circle, turning: Zürich 東京"
    done, width = encoded(TextTokenizerConfig(kind="text", checkpoint=folder), "text", Text(text))
    assert (done.tokens, width) == (None, None)
    assert done.token_ids is not None
    assert done.token_ids.dtype == np.int32
    assert done.grid == (len(done.token_ids), 1, 1)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.decode(done.token_ids) == text
    assert not set(done.token_ids.tolist()) & set(tokenizer.all_special_ids)


def test_raw_tokens_have_no_prefix_and_say_so() -> None:
    """An empty list, as of any encoder without one: null would mean a missing cell."""
    picture = Image(np.zeros((SIZE, SIZE, 3), np.uint8))
    for config, modality, media in (
        (PatchConfig(size=SIZE, patch_size=PATCH), "image", picture),
        (
            AudioFrameConfig(kind="audio_frame", sample_rate=8000),
            "audio",
            Waveform(np.ones(800, np.float32), 8000, 0.0),
        ),
    ):
        done, width = encoded(config, modality, media)  # type: ignore[arg-type]
        assert done.prefix_tokens is not None
        assert done.prefix_tokens.shape == (0, width)
