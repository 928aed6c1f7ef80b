"""Twelve encoders on a CUDA device: as on a CPU, by one thread and by several at once, with memory running out.
`python -m pytest -m gpu` on a machine with one; left out where there is none."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import ViTConfig, ViTImageProcessor, ViTModel

from pipeline.checkpoint.checkpoint import Checkpoint
from pipeline.core.media import Frames, Image, Text, Waveform
from pipeline.demo.checkpoints import audio, text, vision
from pipeline.demo.checkpoints._seeded import save
from pipeline.encoders._shared.adaptive_batch import AdaptiveBatchSize
from pipeline.encoders._shared.device import download, upload, upload_stacked
from pipeline.encoders.ast import AstConfig, AstEncoder
from pipeline.encoders.base import Encoded
from pipeline.encoders.bert import BertConfig, BertEncoder
from pipeline.encoders.clap import ClapConfig, ClapEncoder
from pipeline.encoders.clip import ClipConfig, ClipEncoder
from pipeline.encoders.siglip import SiglipConfig, SiglipEncoder
from pipeline.encoders.videomae import VideoMaeConfig, VideoMaeEncoder
from pipeline.encoders.vit import VitConfig, VitEncoder
from pipeline.encoders.vjepa2 import VJepa2Config, VJepa2Encoder
from pipeline.encoders.wav2vec2 import Wav2Vec2Config, Wav2Vec2Encoder
from pipeline.encoders.whisper import WhisperConfig, WhisperEncoder
from pipeline.tokenizers.audio_frame import AudioFrameConfig, AudioFrameTokenizer
from pipeline.tokenizers.base import ModelInputs
from pipeline.tokenizers.patch import PatchConfig, PatchTokenizer
from pipeline.tokenizers.text import TextTokenizer, TextTokenizerConfig
from pipeline.tokenizers.tubelet import TubeletConfig, TubeletTokenizer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
DRAW = np.random.default_rng(5)
KINDS: dict[str, tuple[Any, Any, str, Any, Callable[[Checkpoint], list[ModelInputs]]]] = {}
WRITERS = {**vision.WRITERS, **text.WRITERS, **audio.WRITERS}


def _pictures(where: Checkpoint) -> list[ModelInputs]:
    tokenizer = PatchTokenizer(PatchConfig(), where)
    tokenizer.setup()
    sizes = [(40, 60), (300, 200), (64, 64), (120, 31), (50, 500)] * 7
    return [tokenizer.tokenize(Image(DRAW.integers(0, 256, (*size, 3), np.uint8))) for size in sizes]


def _clips(where: Checkpoint) -> list[ModelInputs]:
    tokenizer = TubeletTokenizer(TubeletConfig(), where)
    tokenizer.setup()
    count = tokenizer.request().sampling.frames
    clips = [DRAW.integers(0, 256, (count, 48, 64, 3), np.uint8) for _ in range(9)]
    return [tokenizer.tokenize(Frames(clip, np.arange(count) / 10)) for clip in clips]


def _texts(where: Checkpoint) -> list[ModelInputs]:
    tokenizer = TextTokenizer(TextTokenizerConfig(kind="text"), where)
    tokenizer.setup()
    words = [
        "a",
        "small",
        "dog",
        "runs",
        "over",
        "the",
        "green",
        "hill",
        "and",
        "back",
        "again",
        "while",
        "it",
        "rains",
    ]
    return [tokenizer.tokenize(Text(" ".join(DRAW.choice(words, n)))) for n in DRAW.integers(1, 50, 70)]


def _sounds(where: Checkpoint) -> list[ModelInputs]:
    rate = int(where.json("preprocessor_config.json").get("sampling_rate", 48_000))
    tokenizer = AudioFrameTokenizer(AudioFrameConfig(kind="audio_frame", sample_rate=rate), None)
    seconds = [0.5, 1.0, 2.3, 0.9, 4.0] * 5
    waves = [DRAW.normal(0, 0.1, int(s * rate)).astype(np.float32) for s in seconds]
    return [tokenizer.tokenize(Waveform(wave, rate, 0.0)) for wave in waves]


SOUND = AudioFrameConfig(kind="audio_frame")
KINDS = {
    "vit": (VitEncoder, VitConfig, "image", PatchConfig(), _pictures),
    "dinov3": (VitEncoder, VitConfig, "image", PatchConfig(), _pictures),
    "clip": (ClipEncoder, ClipConfig, "image", PatchConfig(), _pictures),
    "siglip2": (SiglipEncoder, SiglipConfig, "image", PatchConfig(), _pictures),
    "videomae": (VideoMaeEncoder, VideoMaeConfig, "video", TubeletConfig(), _clips),
    "vjepa2": (VJepa2Encoder, VJepa2Config, "video", TubeletConfig(), _clips),
    "bert": (BertEncoder, BertConfig, "text", TextTokenizerConfig(kind="text"), _texts),
    "modernbert": (BertEncoder, BertConfig, "text", TextTokenizerConfig(kind="text"), _texts),
    "wav2vec2": (Wav2Vec2Encoder, Wav2Vec2Config, "audio", SOUND, _sounds),
    "whisper": (WhisperEncoder, WhisperConfig, "audio", SOUND, _sounds),
    "ast": (AstEncoder, AstConfig, "audio", SOUND, _sounds),
    "clap": (ClapEncoder, ClapConfig, "audio", SOUND, _sounds),
}


@pytest.fixture(params=KINDS)
def case(request: Any, tmp_path: Path) -> tuple[Callable[..., Any], list[ModelInputs]]:
    """How to build the encoder, and rows for it."""
    encoder_class, config_class, modality, tokenizer, rows = KINDS[request.param]
    WRITERS[request.param](str(tmp_path))
    where = Checkpoint(str(tmp_path), request.param, None, "features.x.encoder.checkpoint")
    kind = config_class.model_fields["kind"].annotation.__args__[0]

    def build(device: str, **options: Any) -> Any:
        config = config_class(kind=kind, checkpoint=where.path, device=device, **options)
        encoder = encoder_class(config, where, modality, tokenizer)
        encoder.check("features.x")
        encoder.setup()
        return encoder

    return build, rows(where)


def _same(a: Encoded, b: Encoded, tolerance: float) -> None:
    for name in ("pooled", "tokens", "prefix_tokens"):
        one, other = getattr(a, name), getattr(b, name)
        assert (one is None) == (other is None), name
        if one is not None and one.size:
            assert one.shape == other.shape
            assert one.dtype == np.float32
            assert np.abs(one - other).max() <= tolerance * max(1.0, np.abs(other).max()), name
    assert a.grid == b.grid


def test_a_device_says_what_the_cpu_says(case: Any) -> None:
    build, rows = case
    cpu, gpu = build("cpu").encode(rows, True), build("cuda").encode(rows, True)
    for one, other in zip(gpu, cpu, strict=True):
        _same(one, other, 1e-4)


def test_calls_at_once_say_what_one_says(case: Any) -> None:
    build, rows = case
    encoder = build("cuda", batch_size=4)
    alone = encoder.encode(rows, True)
    with ThreadPoolExecutor(3) as threads:
        for done in threads.map(lambda _: encoder.encode(rows, True), range(12)):
            for one, other in zip(done, alone, strict=True):
                _same(one, other, 0.0)


@pytest.mark.parametrize("case", ["clip", "vit", "bert"], indirect=True)
def test_compiled_layers_say_what_the_others_say(case: Any) -> None:
    build, rows = case
    plain, compiled = build("cuda").encode(rows, True), build("cuda", compile=True)
    with ThreadPoolExecutor(3) as threads:
        for done in threads.map(lambda _: compiled.encode(rows, True), range(6)):
            for one, other in zip(done, plain, strict=True):
                _same(one, other, 1e-4)


def test_calls_at_once_where_memory_runs_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A share of the device that holds what one call takes for its 256 rows, not what three take."""
    save(ViTModel, ViTConfig(hidden_size=768, num_hidden_layers=2, num_attention_heads=12), str(tmp_path))
    ViTImageProcessor(size={"height": 224, "width": 224}).save_pretrained(tmp_path)
    where = Checkpoint(str(tmp_path), "vit", None, "features.x.encoder.checkpoint")
    config = VitConfig(kind="vit", checkpoint=where.path, device="cuda", batch_size=256)
    encoder = VitEncoder(config, where, "image", PatchConfig())
    encoder.setup()
    rows = [ModelInputs({"pixels": DRAW.integers(0, 256, (3, 224, 224), np.uint8)}) for _ in range(256)]
    alone = encoder.encode(rows, True)
    torch.cuda.empty_cache()
    before, total = torch.cuda.memory_allocated(), torch.cuda.get_device_properties(0).total_memory
    torch.cuda.reset_peak_memory_stats()
    encoder.encode(rows, True)
    needed = torch.cuda.max_memory_allocated() - before
    times = []
    monkeypatch.setattr(
        encoder.adaptive_batch,
        "record_out_of_memory",
        lambda: times.append(AdaptiveBatchSize.record_out_of_memory(encoder.adaptive_batch)),
    )
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 0.7 * needed) / total)
    try:
        with ThreadPoolExecutor(3) as threads:
            found = list(threads.map(lambda _: encoder.encode(rows, True), range(6)))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    assert times, "memory did not run out"
    for done in found:
        for one, other in zip(done, alone, strict=True):
            assert isinstance(one, Encoded), str(one)
            _same(one, other, 1e-4)


def test_halves_are_given_where_all_values_fit() -> None:
    values = torch.from_numpy(DRAW.normal(0, 1000, (7, 50, 64)).astype(np.float32)).cuda()
    half = np.dtype(np.float16)
    found = download(values[:, 3:], half)
    assert found.dtype == half
    assert np.array_equal(found, values[:, 3:].cpu().numpy().astype(half))
    for odd in (70_000.0, float("nan"), float("-inf")):
        values[2, 20, 5] = odd
        found = download(values, half)
        assert found.dtype == np.float32
        assert np.array_equal(found, values.cpu().numpy(), equal_nan=True)


def test_arrays_come_back_as_they_went() -> None:
    device = torch.device("cuda")
    big = DRAW.integers(0, 256, (64, 3, 224, 224), np.uint8)

    def there_and_back(number: int) -> None:
        own = np.roll(big, number, axis=0)
        for _ in range(20):
            assert np.array_equal(download(upload_stacked(list(own), device)), own)
            half = upload(own[0].astype(np.float32), device, torch.bfloat16)
            assert half.dtype == torch.bfloat16
            assert np.array_equal(download(half.transpose(0, 2)), own[0].transpose(2, 1, 0))

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(there_and_back, range(6)))
