"""Splits tables of rows into parts that take bounded memory when they are decoded.

The split depends on the rows only, not on the outcome of decoding them. When Ray runs a failed task again, it skips as
many output blocks as it has already consumed, so a repeated task must yield the same parts. (Ray itself merges and
slices the outputs by size, at 128 MiB.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.config.features import BoundFeature
from pipeline.core.media import FramesRequest, Sampling, UniformSampling, WaveformRequest

_SAMPLE_BYTES = 4
_EDGE = 224
"""Pixels per edge, if the processor's config names none."""
_PROCESSORS = ("video_preprocessor_config.json", "preprocessor_config.json", "processor_config.json")
_TOKENS = 512
"""Maximum length of a text, if neither the config nor the model has one."""


@dataclass(frozen=True)
class _InputSize:
    """Estimated bytes of one feature's inputs in a row: ``fixed`` plus ``each_second`` per second, up to ``most``."""

    column: str
    fixed: float = 0.0
    each_second: float = 0.0
    most: float = np.inf


class BlockSplitter:
    """Splits tables of `stages.rows.ROWS` into parts of at most ``max_bytes``, or of one row."""

    def __init__(self, features: Sequence[BoundFeature], max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._inputs = [_input_size(feature) for feature in features]

    def split(self, table: pa.Table) -> list[pa.Table]:
        """Returns consecutive slices of ``table``; ``table`` itself if it is small enough."""
        sizes = self.row_bytes(table)
        if sizes.sum() <= self.max_bytes:
            return [table]
        starts, total = [0], 0.0
        for row, size in enumerate(sizes):
            if total and total + size > self.max_bytes:
                starts.append(row)
                total = 0.0
            total += size
        return [table.slice(start, end - start) for start, end in zip(starts, [*starts[1:], len(table)], strict=True)]

    def row_bytes(self, table: pa.Table) -> np.ndarray:
        """Estimated bytes of each row's inputs, float64 [rows]."""
        ends, starts = (table[name].to_numpy(zero_copy_only=False) for name in ("end_s", "start_s"))
        seconds = np.nan_to_num(np.asarray(ends - starts, np.float64), nan=0.0)
        sizes = np.zeros(len(table))
        for size in self._inputs:
            here = table[size.column].is_valid().to_numpy()
            if size.column == "text_uri":
                here = here | table["inline_text"].is_valid().to_numpy()
            sizes += here * (size.fixed + np.minimum(size.each_second * seconds, size.most))
        return sizes


def _input_size(feature: BoundFeature) -> _InputSize:
    tokenizer, column = feature.tokenizer(), f"{feature.modality}_uri"
    request = tokenizer.request()
    if isinstance(request, WaveformRequest):
        return _InputSize(column, each_second=request.sample_rate * _SAMPLE_BYTES)
    if isinstance(request, FramesRequest):
        return _frames(column, request.sampling, _picture_bytes(feature))
    if feature.modality == "text" and feature.emits("tokens"):
        (tokens,) = [field.type.value_type for field in feature.fields() if field.name == feature.column("tokens")]
        tokenizer.setup()  # reads the model's maximum length
        length = getattr(tokenizer, "max_length", None) or _TOKENS
        return _InputSize(column, fixed=length * tokens.list_size * tokens.value_type.bit_width / 8)
    return _InputSize(column, fixed=_picture_bytes(feature) if feature.modality == "image" else 0.0)


def _frames(column: str, sampling: Sampling, each: float) -> _InputSize:
    if isinstance(sampling, UniformSampling):
        return _InputSize(column, fixed=sampling.frames * each)
    most = np.inf if sampling.max_frames is None else sampling.max_frames * each
    return _InputSize(column, fixed=each, each_second=sampling.fps * each, most=most)


def _picture_bytes(feature: BoundFeature) -> float:
    edge = getattr(feature.config.tokenizer, "size", None)
    if edge is None and feature.checkpoint is not None:
        edge = next(filter(None, map(_edge, map(feature.checkpoint.json, _PROCESSORS))), None)
    return 3.0 * (edge or _EDGE) ** 2


def _edge(processor: Any) -> int | None:
    """The longest edge that a processor's JSON names for what it hands on."""
    if not isinstance(processor, dict):
        return None
    own = processor.get("image_processor") or processor
    for key in ("crop_size", "size"):
        sides = own.get(key) if isinstance(own, dict) else None
        if isinstance(sides, dict) and (edges := [side for side in sides.values() if type(side) is int and side > 0]):
            return max(edges)
    return None
