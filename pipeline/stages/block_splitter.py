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

_AUDIO_SAMPLE_BYTES = 4
_DEFAULT_EDGE = 224
"""Pixels per edge of an image, if the processor's config has none."""
_PROCESSORS = ("video_preprocessor_config.json", "preprocessor_config.json", "processor_config.json")
_DEFAULT_TOKENS = 512
"""Maximum length of a text, if neither the config nor the model has one."""


@dataclass(frozen=True)
class _InputSize:
    """Estimated size of one feature's inputs in a row.

    Args:
        column: column of the URI; a row without one has no inputs.
        fixed_bytes: size of any row.
        bytes_per_s: additional size per second of the window.
        max_timed_bytes: maximum of this additional size.
    """

    column: str
    fixed_bytes: float = 0.0
    bytes_per_s: float = 0.0
    max_timed_bytes: float = np.inf


class BlockSplitter:
    """Splits tables of `stages.rows.ROWS` into parts of at most ``max_bytes``, or of one row.

    Args:
        features: the features that are decoded.
        max_bytes: estimated size of the inputs of one part, in bytes.
    """

    def __init__(self, features: Sequence[BoundFeature], max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._input_sizes = [_input_size(feature) for feature in features]

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
        """Returns the estimated bytes of each row's inputs, float64 [rows]."""
        ends, starts = (table[name].to_numpy(zero_copy_only=False) for name in ("end_s", "start_s"))
        seconds = np.nan_to_num(np.asarray(ends - starts, np.float64), nan=0.0)
        sizes = np.zeros(len(table))
        for size in self._input_sizes:
            has_media = table[size.column].is_valid().to_numpy()
            if size.column == "text_uri":
                has_media = has_media | table["inline_text"].is_valid().to_numpy()
            sizes += has_media * (size.fixed_bytes + np.minimum(size.bytes_per_s * seconds, size.max_timed_bytes))
        return sizes


def _input_size(feature: BoundFeature) -> _InputSize:
    tokenizer, column = feature.tokenizer(), f"{feature.modality}_uri"
    request = tokenizer.request()
    if isinstance(request, WaveformRequest):
        return _InputSize(column, bytes_per_s=request.sample_rate * _AUDIO_SAMPLE_BYTES)
    if isinstance(request, FramesRequest):
        return _frames_size(column, request.sampling, _image_bytes(feature))
    if feature.modality == "text" and feature.emits("tokens"):
        (tokens,) = [field.type.value_type for field in feature.fields() if field.name == feature.column("tokens")]
        tokenizer.setup()  # reads the model's maximum length
        length = getattr(tokenizer, "max_length", None) or _DEFAULT_TOKENS
        return _InputSize(column, fixed_bytes=length * tokens.list_size * tokens.value_type.bit_width / 8)
    return _InputSize(column, fixed_bytes=_image_bytes(feature) if feature.modality == "image" else 0.0)


def _frames_size(column: str, sampling: Sampling, frame_bytes: float) -> _InputSize:
    if isinstance(sampling, UniformSampling):
        return _InputSize(column, fixed_bytes=sampling.frames * frame_bytes)
    max_bytes = np.inf if sampling.max_frames is None else sampling.max_frames * frame_bytes
    return _InputSize(
        column, fixed_bytes=frame_bytes, bytes_per_s=sampling.fps * frame_bytes, max_timed_bytes=max_bytes
    )


def _image_bytes(feature: BoundFeature) -> float:
    """Returns the bytes of one image or frame as the model takes it, with one byte per channel."""
    edge = getattr(feature.config.tokenizer, "size", None)
    if edge is None and feature.checkpoint is not None:
        edge = next(filter(None, map(_processor_edge, map(feature.checkpoint.json, _PROCESSORS))), None)
    return 3.0 * (edge or _DEFAULT_EDGE) ** 2


def _processor_edge(processor: Any) -> int | None:
    """Returns the longest edge of a processor's outputs, in pixels, from its JSON config; None if it has none."""
    if not isinstance(processor, dict):
        return None
    image_processor = processor.get("image_processor") or processor
    for key in ("crop_size", "size"):
        sides = image_processor.get(key) if isinstance(image_processor, dict) else None
        if isinstance(sides, dict) and (edges := [side for side in sides.values() if type(side) is int and side > 0]):
            return max(edges)
    return None
