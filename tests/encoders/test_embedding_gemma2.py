"""EmbeddingGemma 2 equals transformers' own processor and model, one sample at a time, for all four modalities."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.checkpoint.checkpoint import Checkpoint
from pipeline.core.errors import ConfigError, SampleError
from pipeline.core.media import Frames, Image, Modality
from pipeline.demo.checkpoints.gemma import write_embedding_gemma2
from pipeline.encoders.base import Encoded
from pipeline.encoders.embedding_gemma2 import EmbeddingGemma2Config, EmbeddingGemma2Encoder
from pipeline.tokenizers.base import ModelInputs
from pipeline.tokenizers.frame import FrameConfig, FrameTokenizer
from pipeline.tokenizers.patch import PatchConfig, PatchTokenizer
from tests.encoders.sound_fixtures import assert_close, orders, sounds, texts, token_inputs, waveform_inputs
from tests.encoders.vision_fixtures import assert_distinct, tokenized

TOKENIZERS: dict[Modality, Any] = {
    "image": PatchConfig(),
    "video": FrameConfig(tokens="patch"),
}


@pytest.fixture(scope="module", name="checkpoint")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("gemma")
    write_embedding_gemma2(str(folder))
    return at(folder)


def at(folder: Path) -> Checkpoint:
    return Checkpoint(str(folder), "gemma", None, "features.x.encoder.checkpoint")


def changed(checkpoint: Checkpoint, folder: Path, file: str, part: str | None = None, **values: Any) -> Checkpoint:
    """A copy of the checkpoint in ``folder`` with other values in ``part`` of one of its JSON files."""
    shutil.copytree(checkpoint.path, folder, dirs_exist_ok=True)
    path = folder / file
    whole = json.loads(path.read_text())
    (whole[part] if part else whole).update(values)
    path.write_text(json.dumps(whole))
    return at(folder)


def build(checkpoint: Checkpoint, modality: Modality, tokenizer: Any = None, **options: Any) -> Any:
    from pipeline.tokenizers.audio_frame import AudioFrameConfig
    from pipeline.tokenizers.text import TextTokenizerConfig

    defaults = {**TOKENIZERS, "text": TextTokenizerConfig(kind="text"), "audio": AudioFrameConfig(kind="audio_frame")}
    config = EmbeddingGemma2Config(kind="embedding_gemma2", checkpoint=checkpoint.path, **options)
    encoder = EmbeddingGemma2Encoder(config, checkpoint, modality, tokenizer or defaults[modality])
    encoder.check("features.x")
    encoder.setup()
    return encoder


@dataclass(frozen=True)
class Reference:
    pooled: np.ndarray
    states: np.ndarray
    ids: np.ndarray

    def at(self, token_id: int) -> np.ndarray:
        return self.states[self.ids == token_id]


@pytest.fixture(name="reference")
def make_reference(checkpoint: Checkpoint) -> Any:
    return reference_of(checkpoint)


def reference_of(checkpoint: Checkpoint) -> Any:
    """transformers' own processor and model over one sample; pooled as sentence-transformers does it."""
    import torch
    from transformers import AutoModel, AutoProcessor

    processor = AutoProcessor.from_pretrained(checkpoint.path)
    model = AutoModel.from_pretrained(checkpoint.path).eval()

    def run(**media: Any) -> Reference:
        inputs = processor(**media, return_tensors="pt")
        inputs.pop("video_metadata", None)
        with torch.inference_mode():
            states = model(**inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1).to(states.dtype)
        pooled = (states * mask).sum(1) / torch.clamp(mask.sum(1), min=1e-9)
        return Reference(pooled[0].numpy(), states[0].numpy(), inputs["input_ids"][0].numpy())

    run.processor = processor  # type: ignore[attr-defined]
    return run


def agree(done: Sequence[Encoded | SampleError], references: Sequence[Reference], token_id: int, how: str) -> None:
    for i, (encoded, reference) in enumerate(zip(done, references, strict=True)):
        assert isinstance(encoded, Encoded), f"{how}, row {i}: {encoded}"
        assert_close(encoded.pooled, reference.pooled, f"{how}, pooled of row {i}")
        assert_close(encoded.tokens, reference.at(token_id), f"{how}, tokens of row {i}")
        assert encoded.grid is not None
        assert np.prod(encoded.grid) == len(reference.at(token_id))


def test_text(checkpoint: Checkpoint, reference: Any, data: Path) -> None:
    """Short texts, and texts many times longer than the window of the sliding layer."""
    strings = texts(data)
    references = [reference(text=[text], truncation=True, max_length=600) for text in strings]
    assert max(len(r.ids) for r in references) == 600
    assert min(len(r.ids) for r in references) < 16
    assert_distinct([r.pooled for r in references])
    rows = token_inputs(strings, checkpoint, max_length=600)
    for how, done in orders(build(checkpoint, "text"), rows):
        for i, (encoded, expected) in enumerate(zip(done, references, strict=True)):
            assert_close(encoded.pooled, expected.pooled, f"{how}, pooled of text {i}")
            assert_close(encoded.tokens, expected.states[1:-1], f"{how}, words of text {i}")
            np.testing.assert_array_equal(encoded.token_ids, expected.ids[1:-1])
            assert encoded.grid == (len(expected.ids) - 2, 1, 1)


def test_the_prompt_is_part_of_the_text(checkpoint: Checkpoint, reference: Any) -> None:
    (row,) = token_inputs(["a red circle"], checkpoint, prompt="task: search result | query: ")
    (done,) = build(checkpoint, "text").encode([row], False)
    assert_close(done.pooled, reference(text=["task: search result | query: a red circle"]).pooled, "with a prompt")


def test_a_text_that_spells_a_placeholder_is_only_a_text(checkpoint: Checkpoint) -> None:
    strings = ["a <|image|> and <|video|> and <|audio|>", "plain"]
    done = build(checkpoint, "text").encode(token_inputs(strings, checkpoint), True)
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint.path)
    model = AutoModel.from_pretrained(checkpoint.path).eval()
    for text, encoded in zip(strings, done, strict=True):
        with torch.inference_mode():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        assert_close(encoded.pooled, states.mean(0).numpy(), text)


def test_image(checkpoint: Checkpoint, reference: Any, pictures: list[np.ndarray]) -> None:
    import PIL.Image

    references = [reference(images=[PIL.Image.fromarray(picture)]) for picture in pictures]
    assert_distinct([r.pooled for r in references])
    rows = tokenized(PatchTokenizer(PatchConfig(), checkpoint), [Image(picture) for picture in pictures])
    assert all(row.inputs["pixels"].dtype == np.uint8 for row in rows)
    for how, done in orders(build(checkpoint, "image"), rows):
        agree(done, references, reference.processor.image_token_id, how)
    tall = next(i for i, picture in enumerate(pictures) if picture.shape[0] == 37)
    assert done[tall].grid[1] > 3 * done[tall].grid[2] > 0  # 37 x 3 pixels: height before width


def clips_as_rows(checkpoint: Checkpoint, clips: Sequence[Frames]) -> list[ModelInputs]:
    return tokenized(FrameTokenizer(FrameConfig(tokens="patch"), checkpoint), clips)


def of_video(reference: Any, clip: Frames) -> Reference:
    """True times in nanoseconds, which the processor divides by the ``fps``."""
    indices = [round(time * 1e9) for time in clip.times_s]
    metadata = {"total_num_frames": 10**13, "fps": 1e9, "frames_indices": indices}
    done: Reference = reference(videos=[clip.pixels], do_sample_frames=False, video_metadata=[metadata])
    return done


@pytest.mark.parametrize("timestamps", [False, True])
def test_video(checkpoint: Checkpoint, clips: list[Frames], tmp_path: Path, timestamps: bool) -> None:
    """Clips of different shapes and numbers of frames, one of them from the second hour of its source."""
    late = Frames(clips[0].pixels[:3], clips[0].times_s[:3] + 3725.0)
    clips = [*clips, late]
    if timestamps:
        checkpoint = changed(checkpoint, tmp_path, "processor_config.json", "video_processor", add_timestamps=True)
    reference = reference_of(checkpoint)
    references = [of_video(reference, clip) for clip in clips]
    assert_distinct([r.pooled for r in references])
    texts = [reference.processor.tokenizer.decode(r.ids) for r in references]
    assert [("62:05" in text) for text in texts] == [False, False, False, timestamps]
    rows = clips_as_rows(checkpoint, clips)
    for how, done in orders(build(checkpoint, "video"), rows):
        agree(done, references, reference.processor.video_token_id, how)
    for clip, encoded in zip(clips, done, strict=True):
        assert encoded.grid[0] == len(clip.pixels)
        np.testing.assert_array_equal(encoded.times_s, clip.times_s)


def test_one_token_a_frame_is_the_mean_of_its_soft_tokens(
    checkpoint: Checkpoint, reference: Any, clips: list[Frames]
) -> None:
    encoder = build(checkpoint, "video", FrameConfig(tokens="frame"))
    for encoded, clip in zip(encoder.encode(clips_as_rows(checkpoint, clips), True), clips, strict=True):
        expected = of_video(reference, clip)
        soft = expected.at(reference.processor.video_token_id)
        assert encoded.grid == (len(clip.pixels), 1, 1)
        assert_close(encoded.pooled, expected.pooled, "pooled")
        assert_close(encoded.tokens, np.stack([f.mean(0) for f in np.split(soft, len(clip.pixels))]), "frames")


def test_audio(checkpoint: Checkpoint, reference: Any, data: Path) -> None:
    """Real sounds, the shortest that gives a token, and lengths that fill the extractor's padding exactly."""
    noise = np.random.default_rng(5).normal(scale=0.1, size=16000 * 31).astype(np.float32)
    waves = [*sounds(data, 16000), noise[:161], noise[:12800], noise[:20480], noise]
    references = [reference(audio=[wave]) for wave in waves]
    assert_distinct([r.pooled for r in references])
    rows = waveform_inputs(waves, 16000, start_s=3.5)
    for how, done in orders(build(checkpoint, "audio"), rows):
        agree(done, references, reference.processor.audio_token_id, how)
    for wave, encoded in zip(waves, done, strict=True):
        steps = encoded.grid[0]
        assert encoded.grid == (steps, 1, 1)
        np.testing.assert_allclose(encoded.times_s, 3.5 + 0.04 * np.arange(steps))
        assert abs(min(len(wave) / 16000, 30.0) - 0.04 * steps) < 0.04  # the tokens cover the sound, up to 30 s


def test_long_sound_in_chunks(checkpoint: Checkpoint, reference: Any) -> None:
    wave = np.random.default_rng(6).normal(scale=0.1, size=16000 * 70).astype(np.float32)
    wave *= np.linspace(0.01, 1, len(wave), dtype=np.float32)
    chunks = [reference(audio=[chunk]) for chunk in np.array_split(wave, 3)]
    (done,) = build(checkpoint, "audio", long="pool").encode(waveform_inputs([wave], 16000), True)
    token_id = reference.processor.audio_token_id
    assert_close(done.pooled, np.mean([chunk.pooled for chunk in chunks], axis=0), "pooled")
    assert_close(done.tokens, np.concatenate([chunk.at(token_id) for chunk in chunks]), "tokens")
    assert len(done.times_s) == len(done.tokens)
    assert 69.9 < done.times_s[-1] + 0.04 < 70.1
    assert np.all(np.diff(done.times_s) > 0)


def test_too_short_a_sound_fails_alone(checkpoint: Checkpoint, reference: Any) -> None:
    wave = np.random.default_rng(7).normal(size=16000).astype(np.float32)
    short, good = build(checkpoint, "audio").encode(waveform_inputs([wave[:160], wave], 16000), True)
    assert isinstance(short, SampleError)
    assert short.kind == "empty"
    assert_close(good.pooled, reference(audio=[wave]).pooled, "its neighbour")


def test_without_tokens(checkpoint: Checkpoint, pictures: list[np.ndarray]) -> None:
    rows = tokenized(PatchTokenizer(PatchConfig(), checkpoint), [Image(picture) for picture in pictures[:2]])
    encoder = build(checkpoint, "image")
    for lean, full in zip(encoder.encode(rows, False), encoder.encode(rows, True), strict=True):
        assert lean.tokens is None
        np.testing.assert_array_equal(lean.pooled, full.pooled)


def test_one_space_and_one_model_for_all_four(checkpoint: Checkpoint) -> None:
    build_encoder = {modality: build(checkpoint, modality) for modality in ("text", "image", "video", "audio")}
    specs = {modality: encoder.spec() for modality, encoder in build_encoder.items()}
    assert {(spec.space, spec.dim, spec.token_dim, spec.normalized) for spec in specs.values()} == {
        (specs["text"].space, 24, 24, True)
    }
    assert len({id(encoder.model) for encoder in build_encoder.values()}) == 1
    assert [specs[modality].processor for modality in build_encoder] == [
        "GemmaTokenizer (tokenizers)",
        "Gemma4ImageProcessor (torchvision)",
        "EmbeddingGemma2VideoProcessor (torchvision)",
        "Gemma4AudioFeatureExtractor",
    ]


def test_what_cannot_work_is_a_config_error(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"features\.x\.encoder\.dtype: .*float16.*bfloat16"):
        build(checkpoint, "text", dtype="float16")
    halves = changed(checkpoint, tmp_path / "half", "config.json", dtype="float16")
    with pytest.raises(ConfigError, match=r"features\.x\.encoder\.dtype: 'auto': float16"):
        build(halves, "text", dtype="auto")
    with pytest.raises(ConfigError, match=r"features\.x\.tokenizer\.kind: 'frame'; this encoder takes patch"):
        build(checkpoint, "image", FrameConfig())
    deaf = changed(checkpoint, tmp_path / "deaf", "config.json", audio_config=None)
    with pytest.raises(ConfigError, match="no tower for audio"):
        build(deaf, "audio")
    other = changed(checkpoint, tmp_path / "other", "processor_config.json", "image_processor", patch_size=16)
    with pytest.raises(ConfigError, match="patch_size 16"):
        build(other, "image")
    bare = tmp_path / "bare"
    shutil.copytree(checkpoint.path, bare, ignore=shutil.ignore_patterns("processor_config.json"))
    with pytest.raises(ConfigError, match="no processor that loads"):
        build(at(bare), "image")
