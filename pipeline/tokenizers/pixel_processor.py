"""A checkpoint's image or video processor, split into geometry and arithmetic.

Geometry (resizing, cropping, cutting into patches) runs in a CPU worker and keeps uint8, a quarter of the bytes of
float32. Rescaling and normalisation work on each value separately, so they can run later, on the encoder's device, with
the same result. If a processor's order of steps does not allow that, it runs completely in the CPU worker and its
output is float32.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.checkpoint.checkpoint import Checkpoint
from pipeline.checkpoint.files import bounded_memory
from pipeline.core.errors import ConfigError, SampleError, describe

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
"""Those of them that then cut the picture into patches [N, P*P*3], channels last."""
_MAX_RESIZED_PIXELS = 1 << 27
"""Maximum pixels after resizing. A picture of 1 x 60000 pixels would be resized to 224 x 13 million, then cropped."""
_MAX_STACKED_BYTES = 1 << 26
"""Maximum bytes of pictures in one call, because a processor copies pictures of one size into one array."""


@dataclass(frozen=True)
class PixelProcessor:
    """Wraps an image or video processor of `transformers` with a torchvision backend."""

    processor: Any

    @property
    def name(self) -> str:
        """Class and backend, as recorded in the lineage."""
        return f"{type(self.processor).__name__} ({self.processor.backend})"

    @cached_property
    def geometry_first(self) -> bool:
        """True if uint8 geometry followed by ``finish`` equals the complete processor."""
        is_known = _defining_class(self.processor, "_preprocess") in _GEOMETRY_FIRST
        is_default = _defining_class(self.processor, "rescale_and_normalize") == "TorchvisionBackend"
        return is_known and is_default and not getattr(self.processor, "do_pad", False)

    def images(self, pictures: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Runs pictures [H, W, 3] uint8 of one size through an image processor. Each is processed separately.

        Returns:
            ``pixels`` [B, C, h, w], or [B, n, P*P*3] from a processor that flattens; uint8, or float32 if not
            ``geometry_first``. If the processor pads patches (NaFlex, Gemma), padding is dropped and ``spatial_shape``
            [B, 2] int32 is the grid. Other outputs of the processor have their own names.

        Raises:
            SampleError: ``limit``, the resized pictures would be too large.
        """
        self._check_resized_size(pictures)
        own = [np.require(picture, requirements="W") for picture in pictures]  # torch warns of read-only arrays
        if not self.geometry_first:
            return _arrays(self.processor(own, return_tensors="pt", **self._options()))
        import torch

        # Not contiguous: with channels last in memory, torch resizes in half the time to the same pixels.
        tensors = [torch.from_numpy(picture).permute(2, 0, 1) for picture in own]
        step = max(1, _MAX_STACKED_BYTES // max(1, own[0].nbytes)) if own else 1
        parts = [
            _arrays(self.processor._preprocess(tensors[i : i + step], **self._preprocess_options))
            for i in range(0, len(tensors), step)
        ]
        return parts[0] if len(parts) == 1 else {n: np.concatenate([part[n] for part in parts]) for n in parts[0]}

    def frames(self, pictures: np.ndarray) -> dict[str, np.ndarray]:
        """Runs frames [T, H, W, 3] uint8 one by one. Returns the same as ``images``, with B = T.

        A video processor must be one that flattens.
        """
        if not hasattr(self.processor, "sample_frames"):
            return self.images(list(pictures))
        pictures = np.require(pictures, requirements="W")
        return _arrays(self.processor(pictures, do_sample_frames=False, return_tensors="pt", **self._options()))

    def video(self, frames: np.ndarray) -> np.ndarray:
        """Runs frames [T, H, W, 3] uint8 through a video processor: [T, C, h, w]. Raises as ``images``."""
        self._check_resized_size(frames)
        frames = np.require(frames, requirements="W")
        out = self.processor(frames, do_sample_frames=False, return_tensors="pt", **self._options())
        name = next(name for name in out if name.startswith("pixel_values"))
        return np.asarray(out[name][0])

    def finish(self, pixels: torch.Tensor) -> torch.Tensor:
        """Rescales and normalises pixels of ``images`` or ``video`` in float32 on their device. Any leading axes."""
        import torch

        if not self.geometry_first:
            return pixels
        is_flat = _defining_class(self.processor, "_preprocess") in _FLATTENS
        if is_flat:  # [..., n, P*P*3] -> [..., 3, n, P*P], the channel axis that normalisation expects
            pixels = pixels.reshape(*pixels.shape[:-1], -1, 3).movedim(-1, -3)
        p = self.processor
        done: torch.Tensor = p.rescale_and_normalize(
            pixels.to(torch.float32), p.do_rescale, p.rescale_factor, p.do_normalize, p.image_mean, p.image_std
        )
        return done.movedim(-3, -1).flatten(-2) if is_flat else done

    @cached_property
    def _preprocess_options(self) -> dict[str, Any]:
        """The keyword arguments that an image processor passes to its ``_preprocess``, the same for all pictures.

        Calling the processor checks and completes them each time, which takes as long as the geometry.
        """
        captured: dict[str, Any] = {}

        class Captured(Exception):
            pass

        def capture(pictures: Any, **options: Any) -> None:
            captured.update(options)
            raise Captured

        probe = copy.copy(self.processor)
        probe._preprocess = capture
        with suppress(Captured):
            probe([np.zeros((32, 32, 3), np.uint8)], return_tensors="pt", **self._options())
        return captured

    def _options(self) -> dict[str, Any]:
        """Names the channel axis, because a picture 3 pixels high would be taken for one with channels first."""
        skipped = {"do_rescale": False, "do_normalize": False} if self.geometry_first else {}
        return {"input_data_format": "channels_last", **skipped}

    def _check_resized_size(self, pictures: Sequence[np.ndarray] | np.ndarray) -> None:
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


_NAMES = {
    "pixel_values": "pixels",
    "pixel_values_videos": "pixels",
    "image_position_ids": "position_ids",
    "video_position_ids": "position_ids",
}
"""Names of a processor's outputs -> names of ``ModelInputs``."""
_COUNTS = ("num_soft_tokens_per_image", "num_soft_tokens_per_video", "num_frames_per_video")
"""Outputs that follow from the shapes of others."""


def _arrays(out: Any) -> dict[str, np.ndarray]:
    """A processor's output for pictures of one size as arrays, without padding patches."""
    arrays = {_NAMES.get(name, name): np.asarray(value) for name, value in out.items() if name not in _COUNTS}
    if "pixel_attention_mask" in arrays:
        del arrays["pixel_attention_mask"]
        arrays["spatial_shape"] = arrays.pop("spatial_shapes").astype(np.int32)
    if "position_ids" in arrays:  # (x, y) of each patch, -1 for padding
        arrays["spatial_shape"] = (arrays.pop("position_ids").max(axis=1) + 1)[:, ::-1].astype(np.int32)
    if "spatial_shape" in arrays:
        patches = int(arrays["spatial_shape"][0].prod())
        arrays["pixels"] = np.ascontiguousarray(arrays["pixels"][:, :patches])
    return arrays


def _defining_class(processor: Any, method: str) -> str:
    """Name of the class that defines ``method``; empty if none does."""
    return next((c.__name__ for c in type(processor).__mro__ if method in vars(c)), "")


def load_processor(checkpoint: Checkpoint, video: bool = False) -> PixelProcessor:
    """Loads the checkpoint's image processor, or its video processor. Imports transformers.

    Raises:
        ConfigError: there is none, it does not load, or it has no torchvision backend.
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
    """Loads the processor of single video frames.

    That is the image processor, but for a checkpoint with one processor for all modalities its video processor: Gemma
    divides a frame into fewer patches than a picture.
    """
    return load_processor(checkpoint, video="video_processor" in checkpoint.json("processor_config.json"))
