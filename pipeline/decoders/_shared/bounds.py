"""What a whole file may have, whatever it holds. Looked at before anything of it is decoded."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from pipeline.core.errors import SampleError


class FileBounds(BaseModel):
    """A file beyond one of these is a failure (``limit``)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_bytes: int = Field(default=64 << 30, ge=1)
    """Of any file; texts and pictures, which are read whole, have narrower ones of their own."""
    max_seconds: float = Field(default=7 * 86400.0, gt=0, allow_inf_nan=False)
    """A file whose time stamps go beyond this would be cut into windows without end."""
    max_streams: int = Field(default=1000, ge=1, le=1000)
    """Streams of a container, attachments counted, or sound files joined into one. FFmpeg refuses more than 1000 by
    itself, as ``memory``."""

    def check_bytes(self, size: int) -> None:
        """Raises ``SampleError``: ``limit``."""
        if size > self.max_bytes:
            raise SampleError("limit", f"{size} bytes, over max_bytes {self.max_bytes}")

    def check_seconds(self, end_s: float) -> None:
        """Raises ``SampleError``: ``limit``, for NaN too."""
        if not end_s <= self.max_seconds:
            raise SampleError(
                "limit", f"{end_s:.0f} seconds by its time stamps, over max_seconds {self.max_seconds:.0f}"
            )

    def check_streams(self, count: int) -> None:
        """Raises ``SampleError``: ``limit``."""
        if count > self.max_streams:
            raise SampleError("limit", f"{count} streams, over max_streams {self.max_streams}")
