"""Video frames through PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pipeline.decoders.container import Container, Damage, decoding, upright, upright_size
from pipeline.decoders.pictures import PictureLimits, Pictures
from pipeline.decoders.sampling import instants
from pipeline.errors import SampleError
from pipeline.media import Frames, Sampling, Span

_EPSILON = 1e-6
_STALE_S = 0.25


class Config(PictureLimits):
    """`av`: a maintained decoder that reads what FFmpeg reads, remote files by ranges."""

    kind: Literal["pyav"] = "pyav"


@dataclass(frozen=True)
class _Unshown(Damage):
    """A picture that should have been shown from ``time_s`` on, on the container's clock."""

    def hides(self, asked_s: float, shown_s: float) -> bool:
        """True if it is why a picture of ``shown_s``, long gone or yet to come, stands in for ``asked_s``."""
        stands_in = shown_s < self.time_s - _EPSILON or shown_s > asked_s + _EPSILON
        return self.time_s <= asked_s + _EPSILON and stands_in and abs(asked_s - shown_s) > _STALE_S


class PyavReader:
    """Frames of an open container's video stream, over ``span``.

    Where a stream changes its size, all pictures of a window have the size of its first. A packet that cannot be
    decoded is left out, and the picture before it stays; a window where that hides most pictures is ``corrupt``.
    """

    def __init__(self, container: Container, span: Span, limits: PictureLimits) -> None:
        self.container, self.span, self.limits = container, span, limits
        self.damage: list[_Unshown] = []

    def frames(self, sampling: Sampling, start_s: float, end_s: float) -> Frames:
        """The sampled pictures of ``[start_s, end_s)``. Raises ``SampleError``."""
        asked = instants(sampling, max(start_s, self.span.start_s), min(end_s, self.span.end_s))
        with decoding():
            return self._shown(asked)

    def _shown(self, asked: np.ndarray) -> Frames:
        """The picture shown at each instant: decode onwards from the key frame before the first."""
        start_s = self.container.start_s or 0.0
        for rewind_to in (float(asked[0]) + start_s, None) if self.container.has_times else (None,):
            pictures, times = self._walk(asked, rewind_to, start_s)
            if times and (times[0] <= asked[0] + _EPSILON or rewind_to is None):
                break
        if not times:
            if self.damage:
                raise SampleError("corrupt", self.damage[0].words)
            raise SampleError("empty", f"no frame at {asked[0]:.3f} s")
        hidden = [next((d for d in self.damage if d.hides(*at)), None) for at in zip(asked, times, strict=True)]
        told = [damage.words for damage in hidden if damage is not None]
        if 2 * len(told) > len(asked):
            raise SampleError("corrupt", told[0])
        return Frames(pictures.pixels, np.array(times, np.float64))

    def _walk(self, asked: np.ndarray, rewind_to: float | None, start_s: float) -> tuple[Pictures, list[float]]:
        """The pictures with their times; none if the seek went too far."""
        self.container.rewind(rewind_to)
        pictures, times = Pictures(len(asked), self.limits), list[float]()
        shown: tuple[float, Any] | None = None
        for time_s, frame in self._timed(start_s):
            if shown is not None:
                self._put(pictures, times, shown, int(np.searchsorted(asked, time_s - _EPSILON)))
            if len(times) == len(asked):
                break
            if shown is None and time_s > asked[0] + _EPSILON and rewind_to is not None:
                break
            self.limits.check_frame(frame.width, frame.height)
            shown = (time_s, frame)
        else:
            if shown is not None:
                self._put(pictures, times, shown, len(asked))
        return pictures, times

    def _put(self, pictures: Pictures, times: list[float], shown: tuple[float, Any], until: int) -> None:
        """``shown`` at the instants up to index ``until`` that have no picture yet."""
        more = until - len(times)
        if more > 0:
            frame = shown[1]
            size = pictures.size or upright_size(frame, *self.limits.scaled(frame.height, frame.width))
            pictures.add(upright(frame, size), more)
            times.extend([shown[0]] * more)

    def _timed(self, start_s: float) -> Iterator[tuple[float, Any]]:
        """Frames in presentation order with their times; a frame without a time follows the one before."""
        stream = self.container.video
        step = float(1 / (stream.guessed_rate or stream.average_rate or 25))
        last: float | None = None
        self.damage = []
        for got in self.container.decoded(stream):
            if isinstance(got, Damage):
                after_last = -np.inf if last is None else last + step
                self.damage.append(_Unshown(after_last if np.isnan(got.time_s) else got.time_s - start_s, got.words))
                continue
            time_s = got.time - start_s if got.time is not None else (0.0 if last is None else last + step)
            last = time_s
            yield time_s, got
