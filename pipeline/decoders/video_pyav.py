"""Video frames through PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pipeline.decoders.container import Container, decoding, upright
from pipeline.decoders.sampling import instants
from pipeline.errors import SampleError, describe
from pipeline.media import Frames, Sampling, Span


class Config(BaseModel):
    """`av`: a maintained decoder that reads what FFmpeg reads, remote files by ranges."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["pyav"] = "pyav"
    max_pixels: int = Field(default=33_177_600, ge=1)
    """Width x height of a frame (default 8K); a larger one is a failure (``limit``)."""


class PyavReader:
    """Frames of an open container's video stream, over ``span``."""

    def __init__(self, container: Container, span: Span) -> None:
        self.container, self.span = container, span
        self.broken: str | None = None

    def frames(self, sampling: Sampling, start_s: float, end_s: float) -> Frames:
        """The sampled pictures of ``[start_s, end_s)``. Raises ``SampleError``."""
        asked = instants(sampling, max(start_s, self.span.start_s), min(end_s, self.span.end_s))
        with decoding():
            return self._shown(asked)

    def _shown(self, asked: np.ndarray) -> Frames:
        """The picture shown at each instant: decode onwards from the key frame before the first."""
        start_s = self.container.start_s or 0.0
        for rewind_to in (float(asked[0]) + start_s, None):
            pixels, times = self._walk(asked, rewind_to, start_s)
            if times and (times[0] <= asked[0] + 1e-6 or rewind_to is None):
                break
        if not times:
            raise SampleError("empty", f"no frame at {asked[0]:.3f} s")
        return Frames(np.stack(pixels), np.array(times, np.float64))

    def _walk(self, asked: np.ndarray, rewind_to: float | None, start_s: float) -> tuple[list[np.ndarray], list[float]]:
        self.container.rewind(rewind_to)
        self.broken = None
        pixels: list[np.ndarray] = []
        times: list[float] = []
        shown: tuple[float, Any] | None = None
        for time_s, frame in self._decoded(start_s):
            if shown is not None and len(times) < len(asked) and time_s > asked[len(times)] + 1e-6:
                picture = upright(shown[1])
                while len(times) < len(asked) and time_s > asked[len(times)] + 1e-6:
                    pixels.append(picture)
                    times.append(shown[0])
            if len(times) == len(asked):
                break
            if shown is None and time_s > asked[0] + 1e-6 and rewind_to is not None:
                return [], []  # the seek went too far
            shown = (time_s, frame)
        if shown is not None and self.broken and not times and asked[0] >= shown[0] + _shown_for(shown[1]):
            raise SampleError("corrupt", self.broken)  # it broke off before this window
        if shown is not None and len(times) < len(asked):
            picture = upright(shown[1])
            while len(times) < len(asked):
                pixels.append(picture)
                times.append(shown[0])
        return pixels, times

    def _decoded(self, start_s: float) -> Iterator[tuple[float, Any]]:
        """Frames in presentation order with their times; a frame without a time follows the one before."""
        import av

        stream = self.container.video
        step = float(1 / (stream.average_rate or 25))
        last: float | None = None
        got = False
        try:
            for frame in self.container.av.decode(stream):
                time_s = frame.time - start_s if frame.time is not None else (0.0 if last is None else last + step)
                if last is not None and time_s <= last:
                    time_s = last + step if frame.time is None else time_s
                last, got = time_s, True
                yield time_s, frame
        except av.FFmpegError as error:
            if not got:
                raise
            self.broken = describe(error)


def _shown_for(frame: Any) -> float:
    """Seconds that a frame stays, or a tenth where it does not say."""
    return float(frame.duration * frame.time_base) if frame.duration else 0.1
