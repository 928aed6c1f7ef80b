"""The contract of every kind of encoder; a new kind is tested by one line in ``CASES``.

Tested are shapes, order, independence of the batch, ``want_tokens``, an empty call, memory that runs out, and a CUDA
device where there is one. The values themselves are compared with the `transformers` model by the test of each family
(``test_bert.py`` etc.): families differ in preprocessing, in the method that is called and in the tokens that are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import pytest
import torch

from pipeline import encoders, tokenizers
from pipeline.checkpoint.checkpoint import Checkpoint
from pipeline.core.media import Frames, Image, Media, Modality, Text, Waveform
from pipeline.demo.checkpoints import audio, gemma, text, vision
from pipeline.encoders import EncoderConfig
from pipeline.encoders.base import Encoded, Encoder
from pipeline.tokenizers.audio_frame import AudioFrameConfig
from pipeline.tokenizers.base import ModelInputs
from pipeline.tokenizers.frame import FrameConfig
from pipeline.tokenizers.patch import PatchConfig
from pipeline.tokenizers.text import TextTokenizerConfig
from pipeline.tokenizers.tubelet import TubeletConfig

WRITERS: dict[str, Callable[[str], None]] = {
    **text.WRITERS,
    **audio.WRITERS,
    **vision.WRITERS,
    "embedding_gemma2": gemma.write_embedding_gemma2,
}
TEXT, IMAGE, VIDEO = TextTokenizerConfig(kind="text"), PatchConfig(), FrameConfig(tokens="patch")
CLIP, AUDIO = TubeletConfig(), AudioFrameConfig(kind="audio_frame")


@dataclass(frozen=True)
class Case:
    kind: str
    modality: Modality
    tokenizer: Any
    checkpoint: str | None

    def __str__(self) -> str:
        return f"{self.checkpoint or self.kind}-{self.modality}"


CASES = [
    Case("bert", "text", TEXT, "bert"),
    Case("clip", "text", TEXT, "clip"),
    Case("clip", "image", IMAGE, "clip"),
    Case("clip", "video", VIDEO, "clip"),
    Case("siglip", "text", TEXT, "siglip2"),
    Case("siglip", "image", IMAGE, "siglip"),
    Case("siglip", "image", IMAGE, "siglip2"),
    Case("siglip", "video", VIDEO, "siglip"),
    Case("vit", "image", IMAGE, "dinov2_with_registers"),
    Case("vit", "video", VIDEO, "vit"),
    Case("videomae", "video", CLIP, "videomae"),
    Case("vjepa2", "video", CLIP, "vjepa2"),
    Case("wav2vec2", "audio", AUDIO, "wav2vec2"),
    Case("wav2vec2", "audio", AUDIO, "wav2vec2_layer"),
    Case("whisper", "audio", AUDIO, "whisper"),
    Case("ast", "audio", AUDIO, "ast"),
    Case("clap", "text", TEXT, "clap"),
    Case("clap", "audio", AUDIO, "clap"),
    Case("embedding_gemma2", "text", TEXT, "embedding_gemma2"),
    Case("embedding_gemma2", "image", IMAGE, "embedding_gemma2"),
    Case("embedding_gemma2", "video", VIDEO, "embedding_gemma2"),
    Case("embedding_gemma2", "audio", AUDIO, "embedding_gemma2"),
    Case("raw", "image", PatchConfig(size=16, patch_size=8), None),
    Case("raw", "video", FrameConfig(size=16, patch_size=8, tokens="patch"), None),
    Case("raw", "audio", AudioFrameConfig(kind="audio_frame", sample_rate=16_000), None),
]
MODEL_CASES = [case for case in CASES if case.checkpoint is not None]
"""Cases with a model. ``raw`` has none: no forward pass and no device."""


def test_every_kind_has_a_case() -> None:
    kinds = {get_args(one.model_fields["kind"].annotation)[0] for one in get_args(get_args(EncoderConfig)[0])}
    assert {case.kind for case in CASES} == kinds


@pytest.fixture(scope="module")
def checkpoint_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Checkpoint]:
    made: dict[str, Checkpoint] = {}

    def checkpoint_of(name: str) -> Checkpoint:
        if name not in made:
            folder = str(tmp_path_factory.mktemp(name))
            WRITERS[name](folder)
            made[name] = Checkpoint(folder, name, None, "features.x.encoder.checkpoint")
        return made[name]

    return checkpoint_of


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    made: Case = request.param
    return made


@pytest.fixture
def build(case: Case, checkpoint_of: Callable[[str], Checkpoint]) -> Callable[[str], Encoder]:
    """A function that builds the encoder of the case on a device."""
    checkpoint = None if case.checkpoint is None else checkpoint_of(case.checkpoint)
    config_class = next(
        one
        for one in get_args(get_args(EncoderConfig)[0])
        if get_args(one.model_fields["kind"].annotation) == (case.kind,)
    )

    def build(device: str) -> Encoder:
        options = {} if checkpoint is None else {"checkpoint": checkpoint.path, "batch_size": 3, "device": device}
        encoder = encoders.build(config_class(kind=case.kind, **options), checkpoint, case.modality, case.tokenizer)
        encoder.check("features.x")
        encoder.setup()
        return encoder

    return build


@pytest.fixture
def rows(case: Case, checkpoint_of: Callable[[str], Checkpoint]) -> list[ModelInputs]:
    """Inputs of four media of different sizes."""
    tokenizer = tokenizers.build(case.tokenizer, None if case.checkpoint is None else checkpoint_of(case.checkpoint))
    tokenizer.check("features.x.tokenizer")
    tokenizer.setup()
    return [tokenizer.tokenize(one) for one in _media(case.modality, tokenizer)]


@pytest.fixture
def encoder(build: Callable[[str], Encoder]) -> Encoder:
    return build("cpu")


def _media(modality: Modality, tokenizer: Any) -> list[Media]:
    """Four media of different sizes."""
    draw = np.random.default_rng(7)
    if modality == "text":
        words = ["a", "small", "dog", "runs", "over", "the", "green", "hill", "and", "back", "again"]
        return [Text(" ".join(words[:n])) for n in (1, 9, 4, 11)]
    if modality == "image":
        sizes = [(40, 60), (64, 64), (31, 90), (50, 20)]
        return [Image(draw.integers(0, 256, (*size, 3), np.uint8)) for size in sizes]
    if modality == "video":
        count = tokenizer.request().sampling.frames
        clips = [
            draw.integers(0, 256, (count, *size, 3), np.uint8) for size in ((40, 60), (64, 48), (30, 30), (40, 60))
        ]
        return [Frames(clip, np.arange(count) / 10) for clip in clips]
    rate = tokenizer.request().sample_rate
    waves = [draw.normal(0, 0.1, int(seconds * rate)).astype(np.float32) for seconds in (0.5, 1.2, 0.3, 0.9)]
    return [Waveform(wave, rate, 2.0) for wave in waves]


def _encode(encoder: Encoder, rows: list[ModelInputs], want_tokens: bool = True) -> list[Encoded]:
    done = encoder.encode(rows, want_tokens)
    assert all(isinstance(one, Encoded) for one in done), done
    return [one for one in done if isinstance(one, Encoded)]


def _assert_equal(results: Sequence[Encoded], references: Sequence[Encoded]) -> None:
    for one, reference in zip(results, references, strict=True):
        assert one.grid == reference.grid
        for name in ("pooled", "tokens", "prefix_tokens", "token_ids", "times_s"):
            _assert_close(getattr(one, name), getattr(reference, name))


def _assert_close(ours: np.ndarray | None, reference: np.ndarray | None) -> None:
    assert (ours is None) == (reference is None)
    if ours is not None and reference is not None:
        assert ours.shape == reference.shape
        assert np.abs(ours - reference).max(initial=0) <= 1e-4 * max(1.0, np.abs(reference).max(initial=0))


def test_shapes_match_the_spec_and_the_grid(encoder: Encoder, rows: list[ModelInputs]) -> None:
    spec, done = encoder.spec(), _encode(encoder, rows)
    assert len(done) == len(rows)
    for row, one in zip(rows, done, strict=True):
        assert one.tokens is not None
        assert one.grid is not None
        assert one.tokens.shape == (np.prod(one.grid), spec.token_dim)
        assert one.prefix_tokens is not None
        assert one.prefix_tokens.shape[1] == spec.token_dim
        assert (None if one.pooled is None else len(one.pooled)) == spec.dim
        assert (one.times_s is None) == (row.times_s is None)
        assert one.times_s is None or one.times_s.shape == (one.grid[0],)
        arrays = [array for array in (one.pooled, one.tokens, one.prefix_tokens) if array is not None]
        assert {array.dtype for array in arrays} == {np.dtype(np.float32)}


def test_a_row_does_not_depend_on_its_batch_or_position(encoder: Encoder, rows: list[ModelInputs]) -> None:
    separate = [_encode(encoder, [row])[0] for row in rows]
    _assert_equal(_encode(encoder, rows), separate)
    _assert_equal(_encode(encoder, rows[::-1])[::-1], separate)
    vectors = [one.tokens.mean(0) for one in separate if one.tokens is not None]
    assert all(np.abs(vectors[0] - other).max() > 1e-3 for other in vectors[1:]), "the comparison cannot fail"


def test_without_tokens_the_pooled_vector_is_the_same(encoder: Encoder, rows: list[ModelInputs]) -> None:
    for one, expected in zip(_encode(encoder, rows, False), _encode(encoder, rows), strict=True):
        _assert_close(one.pooled, expected.pooled)
        assert one.tokens is None or one.pooled is None


def test_no_rows_give_no_results(encoder: Encoder) -> None:
    assert encoder.encode([], True) == []


@pytest.mark.parametrize("case", MODEL_CASES, ids=str)
def test_values_are_the_same_where_memory_runs_out(
    encoder: Any, rows: list[ModelInputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is enough for forward passes of one row only."""
    rows = [*rows, *rows]  # each encoder batches rows of equal size
    expected = _encode(encoder, rows)
    forward, refused = encoder.forward, list[int]()

    def forward_of_one_row(batch: Sequence[ModelInputs], want_tokens: bool) -> Any:
        if len(batch) > 1:
            refused.append(len(batch))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(batch, want_tokens)

    monkeypatch.setattr(encoder, "forward", forward_of_one_row)
    _assert_equal(_encode(encoder, rows), expected)
    assert refused, "no forward pass had several rows"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("case", MODEL_CASES, ids=str)
def test_values_on_a_cuda_device_are_those_of_the_cpu(
    build: Callable[[str], Encoder], encoder: Encoder, rows: list[ModelInputs]
) -> None:
    _assert_equal(_encode(build("cuda"), rows), _encode(encoder, rows))
