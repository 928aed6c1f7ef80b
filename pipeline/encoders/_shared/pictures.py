"""Base class of encoders of still images, and of videos frame by frame."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from pipeline.core.arrow import joined
from pipeline.core.errors import SampleError
from pipeline.core.media import Modality
from pipeline.encoders._shared.device import download
from pipeline.encoders._shared.pixels import PixelEncoder, Size
from pipeline.encoders._shared.transformers_encoder import TransformersEncoderConfig
from pipeline.encoders.base import Encoded
from pipeline.tokenizers.base import ModelInputs


class PictureConfig(TransformersEncoderConfig):
    """Options of an encoder of still pictures. For videos ``batch_size`` counts frames."""

    temporal_pool: Literal["mean", "max", "first"] = "mean"
    """How the vectors of the frames of a video window are pooled into one. If the space is normalised, the frames'
    vectors are L2-normalised before."""


@dataclass(frozen=True)
class VisionOutput:
    """A model's output for B pictures, on the host, float32."""

    pooled: np.ndarray | None  # [B, dim]
    prefix: np.ndarray | None  # [B, P, d]
    patches: np.ndarray | None  # [B, N, d] in grid order, then padding; float16 if token_dtype is
    grids: list[Size]  # (H, W) of each picture


class PictureEncoder(PixelEncoder):
    """Encoder of still pictures, and of videos frame by frame. A family implements ``forward_images``."""

    modalities: tuple[Modality, ...] = ("image", "video")
    tokenizer_kinds: tuple[str, ...] = ("patch", "frame")
    kinds: ClassVar[Mapping[str, str]] = {"image": "patch", "video": "frame"}
    normalized = False
    """True if vectors of the space are compared on the unit sphere."""
    config: PictureConfig

    @property
    def per_frame(self) -> bool:
        """True if the tokens are one vector per frame."""
        return self.modality == "video" and self.tokenizer.tokens == "frame"

    def bucket(self, row: ModelInputs) -> Hashable:
        return row.inputs["pixels"].shape[-3:]

    @abstractmethod
    def forward_images(self, pictures: Sequence[dict[str, np.ndarray]], want_hidden: bool) -> VisionOutput:
        """Runs one forward pass over pictures, each a dict of inputs. ``prefix`` and ``patches`` only if wanted."""

    def vision_output(self, pooled: Any, hidden: Any, grids: list[Size], want_hidden: bool) -> VisionOutput:
        """Copies ``pooled`` [B, dim] and, if wanted, ``hidden`` [B, P + N, d] to the host."""
        vectors = None if pooled is None else download(pooled)
        if not want_hidden:
            return VisionOutput(vectors, None, None, grids)
        prefix = self.prefix_length()
        return VisionOutput(
            vectors, download(hidden[:, :prefix]), download(hidden[:, prefix:], self.token_dtype), grids
        )

    @abstractmethod
    def prefix_length(self) -> int:
        """Number of class and register tokens before the patches."""

    @property
    def splits_rows(self) -> bool:
        return self.modality == "video"

    def forward(self, rows: Sequence[ModelInputs], want_tokens: bool) -> list[Encoded | SampleError]:
        by_row = [[row.inputs] if self.modality == "image" else _frames(row) for row in rows]
        pictures = [picture for own in by_row for picture in own]
        want_hidden = want_tokens and not self.per_frame
        step = self.batch_size
        parts = [self.forward_images(pictures[i : i + step], want_hidden) for i in range(0, len(pictures), step)]
        vectors = [part.pooled for part in parts if part.pooled is not None]
        pooled = joined(vectors) if vectors else None
        prefixes = [one for part in parts if part.prefix is not None for one in part.prefix]
        patches = [one for part in parts if part.patches is not None for one in part.patches]
        grids = [grid for part in parts for grid in part.grids]
        done: list[Encoded | SampleError] = []
        start = 0
        for row, own in zip(rows, by_row, strict=True):
            span = slice(start, start + len(own))
            row_pooled = None if pooled is None else pooled[span]
            done.append(self._encoded(row, row_pooled, prefixes[span], patches[span], grids[span]))
            start += len(own)
        return done

    def _encoded(
        self,
        row: ModelInputs,
        pooled: np.ndarray | None,
        prefixes: list[np.ndarray],
        patches: list[np.ndarray],
        grids: list[Size],
    ) -> Encoded:
        """The result of one row.

        Args:
            pooled: vectors of its T pictures [T, dim].
            prefixes: T arrays [P, d], or none.
            patches: T arrays [N, d], or none.
            grids: (H, W) of each picture.
        """
        vector = None if pooled is None else pooled[0] if self.modality == "image" else self._pool_frames(pooled)
        times = row.times_s if self.modality == "video" else None
        if self.per_frame:
            none = None if pooled is None else pooled[:0]
            return Encoded(vector, tokens=pooled, prefix_tokens=none, grid=(len(grids), 1, 1), times_s=times)
        height, width = grids[0]
        return Encoded(
            vector,
            tokens=joined([one[: height * width] for one in patches]) if patches else None,
            prefix_tokens=joined(prefixes) if prefixes else None,
            grid=(len(grids), height, width),
            times_s=times,
        )

    def _pool_frames(self, vectors: np.ndarray) -> np.ndarray:
        """[T, dim] -> [dim]."""
        if self.normalized:
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        pool = self.config.temporal_pool
        pooled: np.ndarray = vectors[0] if pool == "first" else getattr(vectors, pool)(axis=0)
        return pooled


def _frames(row: ModelInputs) -> list[dict[str, np.ndarray]]:
    """The inputs of each frame of a video."""
    return [{name: array[t] for name, array in row.inputs.items()} for t in range(len(row.inputs["pixels"]))]
