"""Video frames through PyAV. Consecutive windows of a file are decoded in one pass over its packets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pipeline.core.errors import SampleError
from pipeline.core.media import Frames, Sampling, Span
from pipeline.decoders._shared.container import Container, Damage
from pipeline.decoders._shared.decode_plan import CODECS, DecodePlan
from pipeline.decoders._shared.demuxer import decoding
from pipeline.decoders._shared.pictures import PictureLimits, Pictures
from pipeline.decoders._shared.rotation import upright, upright_size
from pipeline.decoders._shared.sampling import instants, not_before

_STALE_S = 0.25
_MAX_DECODE_AHEAD_S = 10.0
"""If the container has no index of key frames: up to this distance the reader decodes onwards instead of seeking."""


class Config(PictureLimits):
    """`av`: a maintained decoder of all formats of FFmpeg, which reads remote files by ranges."""

    kind: Literal["pyav"] = "pyav"


@dataclass(frozen=True)
class _MissingPicture(Damage):
    """A picture that could not be decoded, which should be shown from ``time_s`` (from the container's start) on."""

    def is_cause(self, asked_s: float, shown_s: float, tolerance_s: float) -> bool:
        """True if, because of it, a picture of ``shown_s``, too far from ``asked_s``, is shown at ``asked_s``."""
        is_other = shown_s < self.time_s - tolerance_s or shown_s > asked_s + tolerance_s
        return self.time_s <= asked_s + tolerance_s and is_other and abs(asked_s - shown_s) > _STALE_S


@dataclass
class _Pass:
    """The reader's position in one pass over the stream: between two pictures."""

    frames: Iterator[tuple[float, Any]]
    plan: DecodePlan | None
    """None: all pictures are decoded."""
    shown: tuple[float, Any] | None = None
    """The current picture with its time."""
    next_shown: tuple[float, Any] | None = None
    """The picture after it, if it is decoded already."""
    last_asked_s: float = -np.inf
    """The last requested instant."""
    is_at_end: bool = False


class PyavReader:
    """Reads frames of a container's video stream, within ``span``.

    If the frame size changes within the stream, all pictures of a window have the size of its first. For a packet that
    cannot be decoded, the picture before it is shown longer; a window in which this concerns most pictures is
    ``corrupt``.
    """

    def __init__(self, container: Container, span: Span, limits: PictureLimits) -> None:
        from av.video.reformatter import VideoReformatter

        self.reformatter = VideoReformatter()
        self.container, self.span, self.limits = container, span, limits
        self.damage: list[_MissingPicture] = []
        self.current_pass: _Pass | None = None
        self.skips_pictures = container.is_indexed and container.video.codec_context.name in CODECS

    def frames(self, sampling: Sampling, start_s: float, end_s: float) -> Frames:
        """The sampled pictures of ``[start_s, end_s)``. Raises ``SampleError``."""
        span = self.span
        asked = instants(sampling, max(start_s, span.start_s), min(end_s, span.end_s), span.tolerance_s)
        try:
            with decoding():
                shown = self._shown_at(asked)
        except BaseException:
            self.current_pass = None  # so that the same request starts again and raises the same error
            raise
        return Frames(shown.pixels, not_before(shown.times_s, start_s, span))

    def _shown_at(self, asked: np.ndarray) -> Frames:
        """The picture shown at each instant."""
        pictures, times = self._read(asked)
        plan = self.current_pass.plan if self.current_pass else None
        if plan is not None and (self.damage or not plan.matches(times)):
            # times or pictures differ from what the packets state: from now on every picture is decoded
            self.skips_pictures, self.current_pass = False, None
            pictures, times = self._read(asked)
        if not times:
            if self.damage:
                raise SampleError("corrupt", self.damage[0].message)
            raise SampleError("empty", f"no frame at {asked[0]:.3f} s")
        tolerance_s = self.span.tolerance_s
        causes = [
            next((one for one in self.damage if one.is_cause(asked_s, shown_s, tolerance_s)), None)
            for asked_s, shown_s in zip(asked, times, strict=True)
        ]
        messages = [one.message for one in causes if one is not None]
        if 2 * len(messages) > len(asked):
            raise SampleError("corrupt", messages[0])
        return Frames(pictures.pixels, np.array(times, np.float64))

    def _read(self, asked: np.ndarray) -> tuple[Pictures, list[float]]:
        """The pictures and their times: from the current position on, or from the key frame before the first."""
        if self.current_pass is not None and self._can_continue(self.current_pass, float(asked[0])):
            if self.current_pass.shown is not None:  # damage before the current picture has no effect any more
                shown_s = self.current_pass.shown[0]
                self.damage = [one for one in self.damage if one.time_s > shown_s]
            return self._decode_window(self.current_pass, asked, may_start_late=True)
        start_s = self.container.start_s or 0.0
        for rewind_to in (float(asked[0]) + start_s, None) if self.container.has_times else (None,):
            self.container.rewind(rewind_to)
            self.current_pass = self._begin_pass(asked, start_s)
            pictures, times = self._decode_window(self.current_pass, asked, may_start_late=rewind_to is None)
            if times and (times[0] <= asked[0] + self.span.tolerance_s or rewind_to is None):
                break
        return pictures, times

    def _begin_pass(self, asked: np.ndarray, start_s: float) -> _Pass:
        self.damage = []
        stream = self.container.video
        codec = stream.codec_context
        plan = DecodePlan(asked, start_s, self.span.tolerance_s, codec) if self.skips_pictures else None
        if plan is None:
            codec.skip_frame = "DEFAULT"
        decoded = self.container.decoded(stream, iter if plan is None else plan.filter_packets)
        return _Pass(self._timed(stream, decoded, start_s, plan), plan)

    def _can_continue(self, current: _Pass, asked_s: float) -> bool:
        """True if ``asked_s`` is not before the current position, and no key frame is between them."""
        if current.shown is None or asked_s < max(current.shown[0], current.last_asked_s) - self.span.tolerance_s:
            return False
        here_s = (current.next_shown or current.shown)[0]
        if asked_s <= here_s + self.span.tolerance_s:
            return True
        stream, start_s = self.container.video, self.container.start_s or 0.0
        index = stream.index_entries
        if not len(index) or float(index[len(index) - 1].timestamp * stream.time_base) - start_s <= asked_s:
            # no index, or one that grows while the file is read
            return not current.is_at_end and asked_s - here_s < _MAX_DECODE_AHEAD_S
        key = index.search_timestamp(int((asked_s + start_s) / stream.time_base), backward=True, any_frame=False)
        return key < 0 or float(index[key].timestamp * stream.time_base) - start_s <= here_s + self.span.tolerance_s

    def _decode_window(self, current: _Pass, asked: np.ndarray, may_start_late: bool) -> tuple[Pictures, list[float]]:
        """The pictures shown at ``asked`` and their times.

        Args:
            may_start_late: False: returns none if the pass begins after the first instant.
        """
        pictures, times = Pictures(len(asked), self.limits), list[float]()
        if current.plan is not None:
            current.plan.set_instants(asked)
        current.last_asked_s = float(asked[-1])
        while current.next_shown is not None or not current.is_at_end:
            if current.next_shown is None:
                current.next_shown = next(current.frames, None)
                if current.next_shown is None:
                    current.is_at_end = True
                    break
            time_s, frame = current.next_shown
            if current.shown is not None:
                stop = int(np.searchsorted(asked, time_s - self.span.tolerance_s))
                self._add(pictures, times, current.shown, stop)
            if len(times) == len(asked):
                return pictures, times
            if current.shown is None and time_s > asked[0] + self.span.tolerance_s and not may_start_late:
                return pictures, times
            self.limits.check_frame(frame.width, frame.height)
            current.shown, current.next_shown = current.next_shown, None
        if current.shown is not None:
            self._add(pictures, times, current.shown, len(asked))
        return pictures, times

    def _add(self, pictures: Pictures, times: list[float], shown: tuple[float, Any], stop: int) -> None:
        """Adds ``shown`` for the instants before index ``stop`` that have no picture yet."""
        count = stop - len(times)
        if count > 0:
            frame = shown[1]
            size = pictures.size or upright_size(frame, *self.limits.scaled(frame.height, frame.width))
            pictures.add(upright(frame, size, self.reformatter), count)
            times.extend([shown[0]] * count)

    def _timed(
        self, stream: Any, decoded: Iterator[Any], start_s: float, plan: DecodePlan | None
    ) -> Iterator[tuple[float, Any]]:
        """Yields (time, frame) in presentation order. A frame without a time follows the previous one."""
        step = float(1 / (stream.guessed_rate or stream.average_rate or 25))
        last: float | None = None
        for got in decoded:
            if isinstance(got, Damage):
                after_last = -np.inf if last is None else last + step
                time_s = after_last if np.isnan(got.time_s) else got.time_s - start_s
                self.damage.append(_MissingPicture(time_s, got.message))
                continue
            time_s = got.time - start_s if got.time is not None else (0.0 if last is None else last + step)
            last = time_s
            if plan is not None and got.interlaced_frame:
                plan.is_off = True
            yield time_s, got
