"""A checkpoint's own image or video processor, split in two: geometry here, arithmetic on the encoder's device.

Geometry (resize, crop, cutting into patches) runs in a CPU worker and keeps uint8, a quarter of what
float32 would carry to the encoder. Rescaling and normalising work value by value, so they give the same
numbers later. Where that order would change a value, the processor runs whole and float32 travels.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pipeline.checkpoint.checkpoint import Checkpoint
from pipeline.checkpoint.files import bounded_memory
from pipeline.core.errors import ConfigError, SampleError, describe
from pipeline.tokenizers.base import missing

if TYPE_CHECKING:
    import torch

_GEOMETRY_FIRST = (
    "TorchvisionBackend",
    "BaseVideoProcessor",
    "VideoMAEImageProcessor",
    "Siglip2ImageProcessor",
    "Gemma4ImageProcessor",
    "EmbeddingGemma2VideoProcessor",
)
"""Classes of `transformers` whose ``_preprocess`` rescales and normalises after all geometry."""
_FLATTENS = ("Siglip2ImageProcessor", "Gemma4ImageProcessor", "EmbeddingGemma2VideoProcessor")
"""Those that then cut the picture into patches [N, P*P*3], channels last."""
_MAX_RESIZED_PIXELS = 1 << 27
"""A picture of 1 x 60000 pixels would be resized to 224 x 13 million before it is cropped."""
_MAX_STACKED_BYTES = 1 << 26
"""A processor stacks pictures of one size before it resizes them: not all frames of a 4K window once more."""


class PixelTokenizerConfig(BaseModel):
    """Geometry for an encoder without a checkpoint (``raw``). With a checkpoint its processor decides."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int | None = Field(default=None, ge=1, le=8192)
    """Pixels: the shorter edge is resized to it, the centre ``size`` x ``size`` is cut out."""
    patch_size: int | None = Field(default=None, ge=1, le=8192)
    """Pixels on a patch's edge."""


@dataclass(frozen=True)
class PixelProcessor:
    """``processor`` is a torchvision-backed image or video processor of `transformers`."""

    processor: Any

    @property
    def name(self) -> str:
        """Class and backend, for the lineage."""
        return f"{type(self.processor).__name__} ({self.processor.backend})"

    @cached_property
    def geometry_first(self) -> bool:
        """True if uint8 geometry followed by ``finish`` equals the whole processor."""
        known = _definer(self.processor, "_preprocess") in _GEOMETRY_FIRST
        plain = _definer(self.processor, "rescale_and_normalize") == "TorchvisionBackend"
        return known and plain and not getattr(self.processor, "do_pad", False)

    def images(self, pictures: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Pictures [H, W, 3] uint8 of one size through an image processor, each by itself.

        Returns:
            ``pixels`` [B, C, h, w], uint8 (float32 if not ``geometry_first``); a processor that flattens
            gives [B, n, P*P*3]. Padding patches (NaFlex, Gemma) are dropped, ``spatial_shape`` [B, 2] int32
            tells the grid. Whatever else the processor says stands under its own name.
        """
        self._bound(pictures)
        own = [np.require(picture, requirements="W") for picture in pictures]  # torch warns of read-only arrays
        if not self.geometry_first:
            return _arrays(self.processor(own, return_tensors="pt", **self._options()))
        import torch

        # not contiguous: channels last in memory, torch resizes in half the time to the same pixels
        tensors = [torch.from_numpy(picture).permute(2, 0, 1) for picture in own]
        step = max(1, _MAX_STACKED_BYTES // max(1, own[0].nbytes)) if own else 1
        parts = [
            _arrays(self.processor._preprocess(tensors[i : i + step], **self._settled))
            for i in range(0, len(tensors), step)
        ]
        return parts[0] if len(parts) == 1 else {n: np.concatenate([part[n] for part in parts]) for n in parts[0]}

    def frames(self, pictures: np.ndarray) -> dict[str, np.ndarray]:
        """Frames [T, H, W, 3] uint8 one by one: as ``images``, B = T. A video processor must be one that flattens."""
        if not hasattr(self.processor, "sample_frames"):
            return self.images(list(pictures))
        pictures = np.require(pictures, requirements="W")
        return _arrays(self.processor(pictures, do_sample_frames=False, return_tensors="pt", **self._options()))

    def video(self, frames: np.ndarray) -> np.ndarray:
        """Frames [T, H, W, 3] uint8 through a video processor: [T, C, h, w]."""
        self._bound(frames)
        frames = np.require(frames, requirements="W")
        out = self.processor(frames, do_sample_frames=False, return_tensors="pt", **self._options())
        name = next(name for name in out if name.startswith("pixel_values"))
        return np.asarray(out[name][0])

    def finish(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels of ``images`` or ``video``, any leading axes, rescaled and normalised in float32 on their device."""
        import torch

        if not self.geometry_first:
            return pixels
        flat = _definer(self.processor, "_preprocess") in _FLATTENS
        if flat:  # [..., n, P*P*3] -> channels where normalisation looks for them: [..., 3, n, P*P]
            pixels = pixels.reshape(*pixels.shape[:-1], -1, 3).movedim(-1, -3)
        p = self.processor
        done: torch.Tensor = p.rescale_and_normalize(
            pixels.to(torch.float32), p.do_rescale, p.rescale_factor, p.do_normalize, p.image_mean, p.image_std
        )
        return done.movedim(-3, -1).flatten(-2) if flat else done

    @cached_property
    def _settled(self) -> dict[str, Any]:
        """What an image processor hands to its ``_preprocess`` beside the pictures, the same for all of them. Its call
        checks and completes them anew each time, which takes as long as the geometry."""
        told: dict[str, Any] = {}

        class Told(Exception):
            pass

        def listen(pictures: Any, **options: Any) -> None:
            told.update(options)
            raise Told

        listener = copy.copy(self.processor)
        listener._preprocess = listen
        with suppress(Told):
            listener([np.zeros((32, 32, 3), np.uint8)], return_tensors="pt", **self._options())
        return told

    def _options(self) -> dict[str, Any]:
        """The axes are named: a picture 3 pixels high would be taken for one with its channels first."""
        later = {"do_rescale": False, "do_normalize": False} if self.geometry_first else {}
        return {"input_data_format": "channels_last", **later}

    def _bound(self, pictures: Sequence[np.ndarray] | np.ndarray) -> None:
        edge = (self.processor.size or {}).get("shortest_edge") if self.processor.do_resize else None
        longest = (self.processor.size or {}).get("longest_edge")
        if edge is None or longest is not None or not len(pictures):
            return
        height, width = pictures[0].shape[:2]
        pixels = len(pictures) * edge * edge * max(height, width) / min(height, width)
        if pixels > _MAX_RESIZED_PIXELS:
            raise SampleError(
                "limit", f"{len(pictures)} x {height} x {width} pixels would be resized to {pixels:.3g} pixels"
            )


_SAME = {
    "pixel_values": "pixels",
    "pixel_values_videos": "pixels",
    "image_position_ids": "position_ids",
    "video_position_ids": "position_ids",
}
_COUNTS = ("num_soft_tokens_per_image", "num_soft_tokens_per_video", "num_frames_per_video")
"""What the shapes say already."""


def _arrays(out: Any) -> dict[str, np.ndarray]:
    """What a processor made of pictures of one size, under our names, without padding patches."""
    arrays = {_SAME.get(name, name): np.asarray(value) for name, value in out.items() if name not in _COUNTS}
    if "pixel_attention_mask" in arrays:
        del arrays["pixel_attention_mask"]
        arrays["spatial_shape"] = arrays.pop("spatial_shapes").astype(np.int32)
    if "position_ids" in arrays:  # (x, y) of each patch, -1 where there is none
        arrays["spatial_shape"] = (arrays.pop("position_ids").max(axis=1) + 1)[:, ::-1].astype(np.int32)
    if "spatial_shape" in arrays:
        patches = int(arrays["spatial_shape"][0].prod())
        arrays["pixels"] = np.ascontiguousarray(arrays["pixels"][:, :patches])
    return arrays


def _definer(processor: Any, method: str) -> str:
    return next((c.__name__ for c in type(processor).__mro__ if method in vars(c)), "")


def load_processor(checkpoint: Checkpoint, video: bool = False) -> PixelProcessor:
    """The checkpoint's image processor, or its video processor. Imports transformers.

    Raises:
        ConfigError: none there, not readable, or without a torchvision backend.
    """
    from transformers import AutoImageProcessor, AutoVideoProcessor

    kind = AutoVideoProcessor if video else AutoImageProcessor
    try:
        with bounded_memory():
            processor = kind.from_pretrained(
                checkpoint.path, backend="torchvision", trust_remote_code=False, local_files_only=True
            )
    except Exception as error:  # each processor class raises its own
        raise ConfigError(
            checkpoint.where,
            f"{checkpoint.name!r} has no {'video' if video else 'image'} processor that loads ({describe(error)})",
            "save the model's own processor into the same folder",
        ) from error
    if getattr(processor, "backend", None) != "torchvision":
        raise ConfigError(
            checkpoint.where,
            f"the processor {type(processor).__name__} has no torchvision backend",
            "give a checkpoint whose processor has one",
        )
    return PixelProcessor(processor)


def load_frame_processor(checkpoint: Checkpoint) -> PixelProcessor:
    """What makes a video's single frames: the video processor of a checkpoint whose one processor is for all
    modalities (Gemma gives frames fewer patches than pictures), else the image processor."""
    return load_processor(checkpoint, video="video_processor" in checkpoint.json("processor_config.json"))


def centre_square(picture: np.ndarray, size: int) -> np.ndarray:
    """[H, W, 3] uint8 -> [3, size, size] uint8: shorter edge resized to ``size`` (bicubic), centre cut out."""
    from PIL import Image

    height, width = picture.shape[:2]
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    square = Image.fromarray(picture).resize(
        (size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)
    )
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def check_geometry(config: PixelTokenizerConfig, checkpoint: Checkpoint | None, where: str, *needed: str) -> None:
    """Raises ``ConfigError`` unless geometry is said exactly once: by the config or by the checkpoint."""
    for name in needed:
        value = getattr(config, name)
        if checkpoint is None and value is None:
            raise ConfigError(f"{where}.{name}", "not set", missing(name))
    for name in ("size", "patch_size", "tubelet_size"):
        value = getattr(config, name, None)
        if checkpoint is not None and value is not None:
            raise ConfigError(f"{where}.{name}", str(value), "leave it out: the checkpoint's own processor decides")
    if config.size is not None and config.patch_size is not None and config.size % config.patch_size:
        raise ConfigError(
            f"{where}.patch_size", str(config.patch_size), f"a divisor of size {config.size}, so that no pixel is lost"
        )
