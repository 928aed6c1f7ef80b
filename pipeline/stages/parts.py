"""Tables of rows in parts that take bounded memory once they are decoded.

Cut by what the rows are, never by what came of them: of a task that is begun anew Ray takes only the blocks that it has
not taken yet, so they must come out the same. (Ray itself joins and cuts what comes out by its bytes, at 128 MiB.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.features import Feature
from pipeline.media import FramesRequest, Sampling, UniformSampling, WaveformRequest

_SAMPLE_BYTES = 4
_EDGE = 224
"""Pixels of a picture's edge, of a processor that does not say."""
_PROCESSORS = ("video_preprocessor_config.json", "preprocessor_config.json", "processor_config.json")
_TOKENS = 512
"""Of a text, where neither config nor model says."""


@dataclass(frozen=True)
class _Held:
    """What a row holds for one feature: ``fixed`` bytes, and so many for each second, ``most`` of these."""

    column: str
    fixed: float = 0.0
    each_second: float = 0.0
    most: float = np.inf


class Parts:
    """Cuts tables of `stages.rows.ROWS` into parts of at most ``most_bytes``, or of one row."""

    def __init__(self, features: Sequence[Feature], most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._held = [_held(feature) for feature in features]

    def cut(self, table: pa.Table) -> list[pa.Table]:
        """``table`` in order; itself if it is small enough."""
        sizes = self._sizes(table)
        if sizes.sum() <= self.most_bytes:
            return [table]
        starts, held = [0], 0.0
        for row, size in enumerate(sizes):
            if held and held + size > self.most_bytes:
                starts.append(row)
                held = 0.0
            held += size
        return [table.slice(start, end - start) for start, end in zip(starts, [*starts[1:], len(table)], strict=True)]

    def _sizes(self, table: pa.Table) -> np.ndarray:
        """Bytes of each row, about."""
        ends, starts = (table[name].to_numpy(zero_copy_only=False) for name in ("end_s", "start_s"))
        seconds = np.nan_to_num(np.asarray(ends - starts, np.float64), nan=0.0)
        sizes = np.zeros(len(table))
        for held in self._held:
            here = table[held.column].is_valid().to_numpy()
            if held.column == "text_uri":
                here = here | table["inline_text"].is_valid().to_numpy()
            sizes += here * (held.fixed + np.minimum(held.each_second * seconds, held.most))
        return sizes


def _held(feature: Feature) -> _Held:
    tokenizer, column = feature.tokenizer(), f"{feature.modality}_uri"
    request = tokenizer.request()
    if isinstance(request, WaveformRequest):
        return _Held(column, each_second=request.sample_rate * _SAMPLE_BYTES)
    if isinstance(request, FramesRequest):
        return _frames(column, request.sampling, _picture_bytes(feature))
    if feature.modality == "text" and feature.emits("tokens"):
        (tokens,) = [field.type.value_type for field in feature.fields() if field.name == feature.column("tokens")]
        tokenizer.setup()  # it knows how long the model lets a text be
        length = getattr(tokenizer, "max_length", None) or _TOKENS
        return _Held(column, fixed=length * tokens.list_size * tokens.value_type.bit_width / 8)
    return _Held(column, fixed=_picture_bytes(feature) if feature.modality == "image" else 0.0)


def _frames(column: str, sampling: Sampling, each: float) -> _Held:
    if isinstance(sampling, UniformSampling):
        return _Held(column, fixed=sampling.frames * each)
    most = np.inf if sampling.max_frames is None else sampling.max_frames * each
    return _Held(column, fixed=each, each_second=sampling.fps * each, most=most)


def _picture_bytes(feature: Feature) -> float:
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
