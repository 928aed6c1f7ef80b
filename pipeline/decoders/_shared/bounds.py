"""Limits on the size of a file of any modality, checked before it is decoded."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from pipeline.core.errors import SampleError


class FileBounds(BaseModel):
    """Limits on a file; exceeding one is a failure (``limit``)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_bytes: int = Field(default=64 << 30, ge=1)
    """Maximum size of any file. Texts and pictures, which are read whole, have lower limits of their own."""
    max_seconds: float = Field(default=7 * 86400.0, gt=0, allow_inf_nan=False)
    """Maximum end time, by time stamps. A damaged time stamp could otherwise give a huge number of windows."""
    max_streams: int = Field(default=1000, ge=1, le=1000)
    """Maximum streams of a container, attachments included, or of sound streams concatenated in one file. FFmpeg itself
    refuses more than 1000, as ``memory``."""

    def check_bytes(self, size: int) -> None:
        """Raises ``SampleError`` (``limit``) for a file that is too large."""
        if size > self.max_bytes:
            raise SampleError("limit", f"{size} bytes, over max_bytes {self.max_bytes}")

    def check_seconds(self, end_s: float) -> None:
        """Raises ``SampleError`` (``limit``) for an end time that is too late or NaN."""
        if not end_s <= self.max_seconds:
            raise SampleError(
                "limit", f"{end_s:.0f} seconds by its time stamps, over max_seconds {self.max_seconds:.0f}"
            )

    def check_streams(self, count: int) -> None:
        """Raises ``SampleError`` (``limit``) for too many streams."""
        if count > self.max_streams:
            raise SampleError("limit", f"{count} streams, over max_streams {self.max_streams}")
