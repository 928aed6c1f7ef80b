"""What the encoders of pixels share: loading, finishing pixels on the device, pictures one by one, tubelets."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from pipeline.core.arrow import joined
from pipeline.core.errors import ConfigError, SampleError
from pipeline.core.media import Modality
from pipeline.encoders._shared.device import download, upload_stacked
from pipeline.encoders._shared.transformers_encoder import TransformersEncoder, TransformersEncoderConfig
from pipeline.encoders._shared.weights import native_dtype, space_id
from pipeline.encoders.base import Encoded, EncoderSpec
from pipeline.tokenizers.base import ModelInputs
from pipeline.tokenizers.pixel_processor import PixelProcessor, load_processor

if TYPE_CHECKING:
    import torch

Size = tuple[int, int]
"""(height, width)"""


class PictureConfig(TransformersEncoderConfig):
    """Options of an encoder that looks at still pictures. For videos ``batch_size`` counts frames."""

    temporal_pool: Literal["mean", "max", "first"] = "mean"
    """How the frames' vectors become the one of a video window. Frames are L2-normalised before if the
    space is a normalised one."""


@dataclass(frozen=True)
class VisionOutput:
    """What a model says of B pictures, on the host, float32."""

    pooled: np.ndarray | None  # [B, dim]
    prefix: np.ndarray | None  # [B, P, d]
    patches: np.ndarray | None  # [B, N, d] in grid order, then padding; float16 if asked for
    grids: list[Size]  # (H, W) of each picture


class PixelEncoder(TransformersEncoder):
    """Loads the checkpoint's processor beside its model."""

    kinds: ClassVar[Mapping[str, str]] = {}
    """The tokenizer kind that each modality takes."""
    video_processor = False

    @property
    def is_visual(self) -> bool:
        """False for a text tower."""
        return self.modality != "text"

    def check(self, where: str) -> None:
        super().check(where)
        if self.tokenizer.kind != self.kinds[self.modality]:
            raise ConfigError(
                f"{where}.tokenizer.kind",
                f"{self.tokenizer.kind!r}",
                f"for modality {self.modality} this encoder takes {self.kinds[self.modality]!r}",
            )
        if self.is_visual:
            self._check_size(load_processor(self.checkpoint, self.video_processor))

    def _check_size(self, processor: PixelProcessor) -> None:
        """A picture of uneven size, to see whether the processor makes what the model takes."""
        expected = self.picture_size()
        if expected is None:
            return
        picture = np.zeros((50, 70, 3), np.uint8)
        made = processor.video(picture[None]) if self.video_processor else processor.images([picture])["pixels"]
        if made.shape[-2:] != expected:
            raise ConfigError(
                self.checkpoint.where,
                f"the processor of {self.checkpoint.name!r} makes {made.shape[-2]} x {made.shape[-1]} pixels",
                f"its model takes {expected[0]} x {expected[1]}: mend size and crop_size in the processor's JSON",
            )

    @abstractmethod
    def picture_size(self) -> Size | None:
        """The only size that the model takes; None if it takes others. Read from JSON."""

    def setup(self) -> None:
        super().setup()
        if self.is_visual:
            self.processor = load_processor(self.checkpoint, self.video_processor)

    def load_key(self) -> Hashable:
        """Image and video features share one model; a text tower is another."""
        return (*self._loaded_as(), self.is_visual)

    def finish(self, pixels: Sequence[np.ndarray]) -> torch.Tensor:
        """Pixels of the tokenizer as one tensor [B, ...], normalised in float32 on the device, in the model's dtype."""
        return self.processor.finish(upload_stacked(pixels, self.device)).to(self.dtype)


class PictureEncoder(PixelEncoder):
    """Still pictures, and videos frame by frame. A member says how its model looks at pictures."""

    modalities: tuple[Modality, ...] = ("image", "video")
    tokenizer_kinds: tuple[str, ...] = ("patch", "frame")
    kinds: ClassVar[Mapping[str, str]] = {"image": "patch", "video": "frame"}
    normalized = False
    config: PictureConfig

    @property
    def per_frame(self) -> bool:
        """True if the tokens are one vector a frame."""
        return self.modality == "video" and self.tokenizer.tokens == "frame"

    def bucket(self, row: ModelInputs) -> Hashable:
        return row.inputs["pixels"].shape[-3:]

    @abstractmethod
    def forward_images(self, pictures: Sequence[dict[str, np.ndarray]], want_hidden: bool) -> VisionOutput:
        """One forward pass over the inputs of single pictures; tokens None unless wanted."""

    def seen(self, pooled: Any, hidden: Any, grids: list[Size], want_hidden: bool) -> VisionOutput:
        """Tensors ``pooled`` [B, dim] and ``hidden`` [B, P + N, d] on the host."""
        vectors = None if pooled is None else download(pooled)
        if not want_hidden:
            return VisionOutput(vectors, None, None, grids)
        prefix = self.prefix_length()
        return VisionOutput(
            vectors, download(hidden[:, :prefix]), download(hidden[:, prefix:], self.token_dtype), grids
        )

    @abstractmethod
    def prefix_length(self) -> int:
        """Class and register tokens before the patches."""

    @property
    def in_pieces(self) -> bool:
        return self.modality == "video"

    def forward(self, rows: Sequence[ModelInputs], want_tokens: bool) -> list[Encoded | SampleError]:
        singles = [[row.inputs] if self.modality == "image" else _frames(row) for row in rows]
        pictures = [picture for single in singles for picture in single]
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
        for row, single in zip(rows, singles, strict=True):
            own = slice(start, start + len(single))
            of_row = None if pooled is None else pooled[own]
            done.append(self._encoded(row, of_row, prefixes[own], patches[own], grids[own]))
            start += len(single)
        return done

    def _encoded(
        self,
        row: ModelInputs,
        pooled: np.ndarray | None,
        prefixes: list[np.ndarray],
        patches: list[np.ndarray],
        grids: list[Size],
    ) -> Encoded:
        """One row from its pictures: ``pooled`` [T, dim], ``prefixes`` T x [P, d], ``patches`` T x [N, d], ``grids``
        T x (H, W)."""
        vector = None if pooled is None else pooled[0] if self.modality == "image" else self._over_time(pooled)
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

    def _over_time(self, vectors: np.ndarray) -> np.ndarray:
        """[T, dim] -> [dim]."""
        if self.normalized:
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        pool = self.config.temporal_pool
        pooled: np.ndarray = vectors[0] if pool == "first" else getattr(vectors, pool)(axis=0)
        return pooled


def _frames(row: ModelInputs) -> list[dict[str, np.ndarray]]:
    """The inputs of every frame by itself."""
    return [{name: array[t] for name, array in row.inputs.items()} for t in range(len(row.inputs["pixels"]))]


class TubeletEncoder(PixelEncoder):
    """Videos as space-time blocks. A member says what its model makes of the frames [B, T, C, H, W]."""

    modalities = ("video",)
    tokenizer_kinds = ("tubelet",)
    kinds: ClassVar[Mapping[str, str]] = {"video": "tubelet"}
    video_processor = True

    @abstractmethod
    def last_hidden_state(self, pixels: torch.Tensor) -> torch.Tensor:
        """[B, T, C, H, W] -> [B, N, d], N = T / tubelet x H / P x W / P in grid order."""

    def spec(self) -> EncoderSpec:
        config = self.model_config()
        return EncoderSpec(
            dim=config.hidden_size,
            token_dim=config.hidden_size,
            space=space_id(self.checkpoint, "mean"),
            normalized=False,
            native_dtype=native_dtype(self.checkpoint),
            model_type=self.checkpoint.model_type,
            processor=load_processor(self.checkpoint, video=True).name,
        )

    def forward(self, rows: Sequence[ModelInputs], want_tokens: bool) -> list[Encoded | SampleError]:
        model = self.model.config
        pixels = self.finish([row.inputs["pixels"] for row in rows])
        height, width = grid_of(pixels.shape[-2:], model.patch_size)
        hidden = self.last_hidden_state(pixels).float()
        pooled = download(hidden.mean(dim=1))
        tokens = download(hidden, self.token_dtype) if want_tokens else None
        done: list[Encoded | SampleError] = []
        for i, row in enumerate(rows):
            times = None if row.times_s is None else row.times_s[:: model.tubelet_size]
            grid = (pixels.shape[1] // model.tubelet_size, height, width)
            own = None if tokens is None else tokens[i]
            done.append(Encoded(pooled[i], own, None if own is None else own[:0], grid=grid, times_s=times))
        return done


def pair(size: Any) -> Size:
    """``transformers`` writes a square's edge, or (height, width)."""
    if isinstance(size, int):
        return size, size
    height, width = size
    return int(height), int(width)


def grid_of(picture: Sequence[int], patch_size: Any) -> Size:
    """Patches (H, W) of a picture (height, width)."""
    patch = pair(patch_size)
    return int(picture[0]) // patch[0], int(picture[1]) // patch[1]
