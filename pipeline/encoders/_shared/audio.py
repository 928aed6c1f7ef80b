"""Waveforms as parts that a model's fixed span holds, and parts as rows again; shared by audio encoders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.checkpoint.checkpoint import Checkpoint
from pipeline.checkpoint.files import bounded_memory
from pipeline.core.errors import ConfigError, SampleError, describe
from pipeline.encoders.base import Encoded
from pipeline.tokenizers.audio_frame import AudioFrameConfig, check_rate
from pipeline.tokenizers.base import ModelInputs


@dataclass(frozen=True)
class Part:
    """Consecutive samples of one row: ``samples`` float32 [n], from ``start_s`` on."""

    row: int
    start_s: float
    samples: np.ndarray


@dataclass(frozen=True)
class EncodedPart:
    """``tokens`` [steps * bands, d] time-major, ``prefix_tokens`` [P, d]; ``weight``: its share in the row's mean."""

    pooled: np.ndarray
    steps: int
    weight: float = 1.0
    tokens: np.ndarray | None = None
    prefix_tokens: np.ndarray | None = None


def check_sound(checkpoint: Checkpoint, tokenizer: AudioFrameConfig, where: str) -> None:
    """Raises ``ConfigError``: no feature extractor, or another rate than its. ``where``: the feature's path."""
    check_rate(tokenizer, checkpoint, f"{where}.tokenizer")


def check_equal(checkpoint: Checkpoint, what: str, extractor_says: object, model_says: object) -> None:
    """Raises ``ConfigError`` if the feature extractor makes what the model does not take."""
    if extractor_says != model_says:
        raise ConfigError(
            checkpoint.where,
            f"its feature extractor makes {what} {extractor_says}",
            f"its model takes {model_says}: the two are of different checkpoints",
        )


def load_extractor(checkpoint: Checkpoint) -> Any:
    """The checkpoint's own feature extractor, without random dither. Raises ``ConfigError``."""
    from transformers import AutoFeatureExtractor

    try:
        with bounded_memory():
            extractor = AutoFeatureExtractor.from_pretrained(
                checkpoint.path, trust_remote_code=False, local_files_only=True
            )
    except Exception as error:  # each extractor class raises its own
        raise ConfigError(
            checkpoint.where,
            f"{checkpoint.name!r} has no feature extractor that loads ({describe(error)})",
            "save the model's own preprocessor_config.json into the same folder",
        ) from error
    if getattr(extractor, "dither", 0.0):
        extractor.dither = 0.0
    return extractor


def extract(extractor: Any, samples: np.ndarray | list[np.ndarray]) -> dict[str, np.ndarray]:
    """What ``extractor`` makes of one waveform (or a list of one), each array with a batch axis of 1."""
    return dict(extractor(samples, sampling_rate=extractor.sampling_rate, return_tensors="np"))


def waveform(row: ModelInputs) -> np.ndarray:
    """The row's own copy of its samples: extractors may write into what they are given."""
    return np.array(row.inputs["waveform"], np.float32)


def start_s(row: ModelInputs) -> float:
    return 0.0 if row.times_s is None else float(row.times_s[0])


def parts_of(
    rows: Sequence[ModelInputs], rate: int, divide: Callable[[np.ndarray], Sequence[np.ndarray]]
) -> tuple[list[Part], dict[int, SampleError]]:
    """All rows' waveforms divided into parts; ``divide`` may raise ``SampleError`` for one that it refuses."""
    parts, refused = [], {}
    for index, row in enumerate(rows):
        begin = start_s(row)
        try:
            for samples in divide(waveform(row)):
                parts.append(Part(index, begin, samples))
                begin += len(samples) / rate
        except SampleError as error:
            refused[index] = error
    return parts, refused


def in_batches(
    parts: Sequence[Part], batch_size: int, encode: Callable[[Sequence[Part]], list[EncodedPart]]
) -> list[EncodedPart]:
    """``encode`` over ``batch_size`` parts at a time: one long row must not become one huge batch."""
    return [one for i in range(0, len(parts), batch_size) for one in encode(parts[i : i + batch_size])]


def rows_of(
    count: int,
    parts: Sequence[Part],
    encoded: Sequence[EncodedPart],
    refused: dict[int, SampleError],
    step_s: float,
    bands: int = 1,
) -> list[Encoded | SampleError]:
    """Parts put together again: tokens one after the other, pooled vectors as their weighted mean."""
    done: list[Encoded | SampleError] = []
    for index in range(count):
        if index in refused:
            done.append(refused[index])
            continue
        own = [(part, one) for part, one in zip(parts, encoded, strict=True) if part.row == index]
        pooled = np.average([one.pooled for _, one in own], axis=0, weights=[one.weight for _, one in own])
        tokens = [one.tokens for _, one in own if one.tokens is not None]
        if not tokens:
            done.append(Encoded(pooled=pooled.astype(np.float32)))
            continue
        prefix = [one.prefix_tokens for _, one in own if one.prefix_tokens is not None]
        done.append(
            Encoded(
                pooled=pooled.astype(np.float32),
                tokens=np.concatenate(tokens),
                prefix_tokens=np.concatenate(prefix) if prefix else np.zeros((0, tokens[0].shape[1]), np.float32),
                grid=(sum(one.steps for _, one in own), bands, 1),
                times_s=np.concatenate([part.start_s + step_s * np.arange(one.steps) for part, one in own]),
            )
        )
    return done
