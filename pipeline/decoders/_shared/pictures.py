"""Limits on video frames, and the array that the pictures of one window are written into."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pipeline.core.errors import SampleError


class PictureLimits(BaseModel):
    """Size at which frames are decoded, and limits on memory. The same for all video decoders."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shorter_edge: int | None = Field(default=None, ge=16)
    """Pixels to which the shorter edge of a frame is scaled down while it is decoded; smaller frames are not scaled.
    null: full size, which the processor resizes. A value is faster but changes the result: compare with your model
    first."""
    max_pixels: int = Field(default=33_177_600, ge=1)
    """Maximum width x height of a frame (default 8K); a larger one anywhere in the stream is a failure (``limit``)."""
    max_window_bytes: int = Field(default=1 << 30, ge=1)
    """Maximum frames x height x width x 3 of one window; more is a failure (``limit``) before memory is allocated."""

    def scaled(self, height: int, width: int) -> tuple[int, int]:
        """Height and width at which a frame of this size is decoded."""
        shorter = min(height, width)
        if self.shorter_edge is None or shorter <= self.shorter_edge:
            return height, width
        return round(height * self.shorter_edge / shorter), round(width * self.shorter_edge / shorter)

    def check_frame(self, width: int, height: int) -> None:
        """Raises ``SampleError`` (``limit``) for a frame that is too large."""
        if width * height > self.max_pixels:
            raise SampleError("limit", f"{width}x{height} pixels, over max_pixels {self.max_pixels}")

    def check_window(self, frames: int, width: int, height: int) -> None:
        """Raises ``SampleError`` (``limit``) for a window that is too large."""
        size = frames * width * height * 3
        if size > self.max_window_bytes:
            raise SampleError(
                "limit",
                f"{frames} frames of {width}x{height} are {size} bytes, over max_window_bytes {self.max_window_bytes}",
            )


class Pictures:
    """An array ``pixels`` [count, H, W, 3] uint8, allocated once, that pictures of one size are written into."""

    def __init__(self, count: int, limits: PictureLimits) -> None:
        self.count, self.limits = count, limits
        self.filled = 0
        self.pixels = np.empty((count, 0, 0, 3), np.uint8)

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the first picture; None before it is added."""
        return (self.pixels.shape[1], self.pixels.shape[2]) if self.filled else None

    def add(self, picture: np.ndarray, times: int = 1) -> None:
        """Writes ``picture`` [H, W, 3] at the next ``times`` indices. Raises ``SampleError`` (``limit``)."""
        height, width = picture.shape[:2]
        if not self.filled:
            self.limits.check_window(self.count, width, height)
            self.pixels = np.empty((self.count, height, width, 3), np.uint8)
        self.pixels[self.filled : self.filled + times] = picture
        self.filled += times
