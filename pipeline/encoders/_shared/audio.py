"""Splits waveforms into parts that fit a model's input span, and joins the encoded parts; shared by audio encoders."""

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
    """Consecutive samples of one row."""

    row: int
    """Index of the row in the batch."""
    start_s: float
    samples: np.ndarray
    """float32 [n]."""


@dataclass(frozen=True)
class EncodedPart:
    """The model's output for one ``Part``."""

    pooled: np.ndarray
    """[dim]."""
    steps: int
    """Time steps of ``tokens``."""
    weight: float = 1.0
    """Weight in the mean of the row's pooled vectors."""
    tokens: np.ndarray | None = None
    """[steps * bands, d], time-major."""
    prefix_tokens: np.ndarray | None = None
    """[P, d]."""


def check_sound(checkpoint: Checkpoint, tokenizer: AudioFrameConfig, where: str) -> None:
    """Raises ``ConfigError`` if the checkpoint has no feature extractor, or one of another sample rate.

    Args:
        where: the feature's path in the config.
    """
    check_rate(tokenizer, checkpoint, f"{where}.tokenizer")


def check_equal(checkpoint: Checkpoint, what: str, extractor_value: object, model_value: object) -> None:
    """Raises ``ConfigError`` if the feature extractor's output does not match the model's input."""
    if extractor_value != model_value:
        raise ConfigError(
            checkpoint.where,
            f"its feature extractor makes {what} {extractor_value}",
            f"its model takes {model_value}: the two are of different checkpoints",
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
    """Features of one waveform (or of a list of one); each array has a batch axis of 1."""
    return dict(extractor(samples, sampling_rate=extractor.sampling_rate, return_tensors="np"))


def waveform(row: ModelInputs) -> np.ndarray:
    """A copy of the row's samples, because some extractors write into their input."""
    return np.array(row.inputs["waveform"], np.float32)


def start_s(row: ModelInputs) -> float:
    return 0.0 if row.times_s is None else float(row.times_s[0])


def split_rows(
    rows: Sequence[ModelInputs], rate: int, divide: Callable[[np.ndarray], Sequence[np.ndarray]]
) -> tuple[list[Part], dict[int, SampleError]]:
    """Splits the waveforms of all rows into parts.

    Args:
        rate: samples per second.
        divide: splits one waveform; raises ``SampleError`` if it cannot be encoded.

    Returns:
        The parts of all rows in order, and the errors by row index.
    """
    parts, errors = [], {}
    for index, row in enumerate(rows):
        begin = start_s(row)
        try:
            for samples in divide(waveform(row)):
                parts.append(Part(index, begin, samples))
                begin += len(samples) / rate
        except SampleError as error:
            errors[index] = error
    return parts, errors


def encode_in_batches(
    parts: Sequence[Part], batch_size: int, encode: Callable[[Sequence[Part]], list[EncodedPart]]
) -> list[EncodedPart]:
    """Calls ``encode`` with at most ``batch_size`` parts at a time, so that one long row is not one huge batch."""
    return [one for i in range(0, len(parts), batch_size) for one in encode(parts[i : i + batch_size])]


def join_parts(
    count: int,
    parts: Sequence[Part],
    encoded: Sequence[EncodedPart],
    errors: dict[int, SampleError],
    step_s: float,
    bands: int = 1,
) -> list[Encoded | SampleError]:
    """One result per row: the tokens of its parts concatenated, and the weighted mean of their pooled vectors.

    Args:
        count: number of rows.
        parts: as ``split_rows`` returns them, with ``errors``.
        encoded: one per part.
        step_s: seconds per time step.
        bands: tokens per time step.
    """
    done: list[Encoded | SampleError] = []
    for index in range(count):
        if index in errors:
            done.append(errors[index])
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
