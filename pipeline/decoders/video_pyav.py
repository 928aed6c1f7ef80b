"""Video frames through PyAV: one walk through the packets for all windows of a file, as long as they follow each other.

Most pictures of a stream are on the way to those that are asked for, and of H.264's no other picture is made from some
of them (``nal_ref_idc`` 0: most of the B pictures). Those are not decoded.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pipeline.core.errors import SampleError
from pipeline.core.media import Frames, Sampling, Span
from pipeline.decoders._shared.container import Container, Damage
from pipeline.decoders._shared.demuxer import decoding
from pipeline.decoders._shared.pictures import PictureLimits, Pictures
from pipeline.decoders._shared.rotation import upright, upright_size
from pipeline.decoders._shared.sampling import instants, not_before

_STALE_S = 0.25
_WALK_ON_S = 10.0
"""How far it rather decodes than seeks where the container has no index of its key frames."""
_TELLS_UNUSED = ("h264",)
"""Codecs whose packets say for certain that no picture is made from theirs. HEVC's say so of one layer only."""
_AHEAD, _AHEAD_BYTES = 32, 1 << 25
"""Packets, and bytes of them, that are looked at before one is decoded, to find the picture that is shown after it. A
look too short is never wrong: fewer pictures are left out."""


class Config(PictureLimits):
    """`av`: a maintained decoder that reads what FFmpeg reads, remote files by ranges."""

    kind: Literal["pyav"] = "pyav"


@dataclass(frozen=True)
class _Unshown(Damage):
    """A picture that should have been shown from ``time_s`` on, on the container's clock."""

    def hides(self, asked_s: float, shown_s: float, tolerance_s: float) -> bool:
        """True if it is why a picture of ``shown_s``, long gone or yet to come, stands in for ``asked_s``."""
        stands_in = shown_s < self.time_s - tolerance_s or shown_s > asked_s + tolerance_s
        return self.time_s <= asked_s + tolerance_s and stands_in and abs(asked_s - shown_s) > _STALE_S


class _Plan:
    """Which pictures of a walk are needed, by the times of its packets; the decoder leaves out others where it can."""

    def __init__(self, asked: np.ndarray, start_s: float, tolerance_s: float, codec: Any) -> None:
        self.asked, self.start_s, self.tolerance_s, self.codec = asked, start_s, tolerance_s, codec
        self.stamps: list[float] = []
        """Of the pictures that are shown, in the order in which they are, as far as their packets were looked at."""
        self.off = False
        """Set where a packet may hold less than a picture, as a field of an interlaced one: all are decoded then."""

    def ask(self, asked: np.ndarray) -> None:
        """The instants of another window, none of them before the last one's."""
        self.asked = asked
        del self.stamps[: max(0, bisect_right(self.stamps, asked[0] + self.tolerance_s) - 1)]

    def through(self, packets: Iterator[Any]) -> Iterator[Any]:
        """The packets, each with the decoder told whether its picture is needed."""
        ahead: deque[Any] = deque()
        ended: BaseException | None = None
        held = 0
        while ahead or ended is None:
            while ended is None and len(ahead) <= _AHEAD and held <= _AHEAD_BYTES:
                try:
                    packet = next(packets)
                except StopIteration as error:
                    ended = error
                except Exception as error:  # what was read before it comes first
                    ended = error
                else:
                    ahead.append(packet)
                    held += packet.size
                    self.off |= packet.pts is None and packet.size > 0
                    if packet.pts is not None and not packet.is_discard:
                        insort(self.stamps, self._time(packet))
            if ahead:
                packet = ahead.popleft()
                held -= packet.size
                self.codec.skip_frame = "DEFAULT" if self._needed(packet) else "NONREF"
                yield packet
        if not isinstance(ended, StopIteration):
            raise ended

    def _time(self, packet: Any) -> float:
        return float(packet.pts * packet.time_base) - self.start_s

    def _needed(self, packet: Any) -> bool:
        """Whether its picture is on screen at an instant asked for, or comes after all of them, which the next window
        may ask for; the first of all stands in for what is before it."""
        if self.off or packet.pts is None or packet.is_discard:
            return True
        time_s = self._time(packet)
        after = bisect_right(self.stamps, time_s)
        if after >= len(self.stamps) or self.stamps[0] == time_s or time_s > self.asked[-1] + self.tolerance_s:
            return True
        first, stop = np.searchsorted(self.asked, (time_s - self.tolerance_s, self.stamps[after] - self.tolerance_s))
        return bool(stop > first)

    def kept(self, times: list[float]) -> bool:
        """Whether the pictures at ``times`` are those that the packets promise for the instants asked for."""
        if self.off or not self.stamps:
            return False
        stamps = np.array(self.stamps)
        promised = stamps[np.maximum(np.searchsorted(stamps - self.tolerance_s, self.asked, side="right") - 1, 0)]
        return len(times) == len(promised) and bool(np.all(np.abs(promised - times) < self.tolerance_s))


@dataclass
class _Walk:
    """Where the reader stands: between two pictures of the stream."""

    frames: Iterator[tuple[float, Any]]
    plan: _Plan | None
    shown: tuple[float, Any] | None = None
    """The picture on screen."""
    coming: tuple[float, Any] | None = None
    """The one after it, decoded already."""
    asked_s: float = -np.inf
    """The last instant asked for."""
    ended: bool = False


class PyavReader:
    """Frames of an open container's video stream, over ``span``.

    Where a stream changes its size, all pictures of a window have the size of its first. A packet that cannot be
    decoded is left out, and the picture before it stays; a window where that hides most pictures is ``corrupt``.
    """

    def __init__(self, container: Container, span: Span, limits: PictureLimits) -> None:
        from av.video.reformatter import VideoReformatter

        self.reformatter = VideoReformatter()
        self.container, self.span, self.limits = container, span, limits
        self.damage: list[_Unshown] = []
        self.walk: _Walk | None = None
        self.plans = container.indexed and container.video.codec_context.name in _TELLS_UNUSED

    def frames(self, sampling: Sampling, start_s: float, end_s: float) -> Frames:
        """The sampled pictures of ``[start_s, end_s)``. Raises ``SampleError``."""
        span = self.span
        asked = instants(sampling, max(start_s, span.start_s), min(end_s, span.end_s), span.tolerance_s)
        try:
            with decoding():
                shown = self._shown(asked)
        except BaseException:
            self.walk = None  # asked again, it begins anew and says the same
            raise
        return Frames(shown.pixels, not_before(shown.times_s, start_s, span))

    def _shown(self, asked: np.ndarray) -> Frames:
        """The picture shown at each instant: onwards from where it stands, or from the key frame before the first."""
        pictures, times = self._from_some_place(asked)
        plan = self.walk.plan if self.walk else None
        if plan is not None and (self.damage or not plan.kept(times)):
            self.plans, self.walk = False, None  # where times or pictures are not as promised, every one is decoded
            pictures, times = self._from_some_place(asked)
        if not times:
            if self.damage:
                raise SampleError("corrupt", self.damage[0].words)
            raise SampleError("empty", f"no frame at {asked[0]:.3f} s")
        off_s = self.span.tolerance_s
        hidden = [next((d for d in self.damage if d.hides(*at, off_s)), None) for at in zip(asked, times, strict=True)]
        told = [damage.words for damage in hidden if damage is not None]
        if 2 * len(told) > len(asked):
            raise SampleError("corrupt", told[0])
        return Frames(pictures.pixels, np.array(times, np.float64))

    def _from_some_place(self, asked: np.ndarray) -> tuple[Pictures, list[float]]:
        if self.walk is not None and self._goes_on(self.walk, float(asked[0])):
            if self.walk.shown is not None:  # what is older than the picture on screen hides none any more
                self.damage = [one for one in self.damage if one.time_s > self.walk.shown[0]]
            return self._walked(self.walk, asked, anywhere=True)
        start_s = self.container.start_s or 0.0
        for rewind_to in (float(asked[0]) + start_s, None) if self.container.has_times else (None,):
            self.container.rewind(rewind_to)
            self.walk = self._begun(asked, start_s)
            pictures, times = self._walked(self.walk, asked, anywhere=rewind_to is None)
            if times and (times[0] <= asked[0] + self.span.tolerance_s or rewind_to is None):
                break
        return pictures, times

    def _begun(self, asked: np.ndarray, start_s: float) -> _Walk:
        self.damage = []
        stream = self.container.video
        plan = _Plan(asked, start_s, self.span.tolerance_s, stream.codec_context) if self.plans else None
        if plan is None:
            stream.codec_context.skip_frame = "DEFAULT"
        packets = self.container.decoded(stream, iter if plan is None else plan.through)
        return _Walk(self._timed(stream, packets, start_s, plan), plan)

    def _goes_on(self, walk: _Walk, asked_s: float) -> bool:
        """Whether to decode on up to ``asked_s``: not back, and not past a key frame that it could begin at."""
        if walk.shown is None or asked_s < max(walk.shown[0], walk.asked_s) - self.span.tolerance_s:
            return False
        here_s = (walk.coming or walk.shown)[0]
        if asked_s <= here_s + self.span.tolerance_s:
            return True
        stream, start_s = self.container.video, self.container.start_s or 0.0
        index = stream.index_entries
        if not len(index) or float(index[len(index) - 1].timestamp * stream.time_base) - start_s <= asked_s:
            # none, or one that grows while the file is read
            return not walk.ended and asked_s - here_s < _WALK_ON_S
        key = index.search_timestamp(int((asked_s + start_s) / stream.time_base), backward=True, any_frame=False)
        return key < 0 or float(index[key].timestamp * stream.time_base) - start_s <= here_s + self.span.tolerance_s

    def _walked(self, walk: _Walk, asked: np.ndarray, anywhere: bool) -> tuple[Pictures, list[float]]:
        """The pictures with their times; none if the walk begins after the first instant, unless it may."""
        pictures, times = Pictures(len(asked), self.limits), list[float]()
        if walk.plan is not None:
            walk.plan.ask(asked)
        walk.asked_s = float(asked[-1])
        while walk.coming is not None or not walk.ended:
            if walk.coming is None:
                walk.coming = next(walk.frames, None)
                if walk.coming is None:
                    walk.ended = True
                    break
            time_s, frame = walk.coming
            if walk.shown is not None:
                self._put(pictures, times, walk.shown, int(np.searchsorted(asked, time_s - self.span.tolerance_s)))
            if len(times) == len(asked):
                return pictures, times
            if walk.shown is None and time_s > asked[0] + self.span.tolerance_s and not anywhere:
                return pictures, times
            self.limits.check_frame(frame.width, frame.height)
            walk.shown, walk.coming = walk.coming, None
        if walk.shown is not None:
            self._put(pictures, times, walk.shown, len(asked))
        return pictures, times

    def _put(self, pictures: Pictures, times: list[float], shown: tuple[float, Any], until: int) -> None:
        """``shown`` at the instants up to index ``until`` that have no picture yet."""
        more = until - len(times)
        if more > 0:
            frame = shown[1]
            size = pictures.size or upright_size(frame, *self.limits.scaled(frame.height, frame.width))
            pictures.add(upright(frame, size, self.reformatter), more)
            times.extend([shown[0]] * more)

    def _timed(
        self, stream: Any, decoded: Iterator[Any], start_s: float, plan: _Plan | None
    ) -> Iterator[tuple[float, Any]]:
        """Frames in presentation order with their times; a frame without a time follows the one before."""
        step = float(1 / (stream.guessed_rate or stream.average_rate or 25))
        last: float | None = None
        for got in decoded:
            if isinstance(got, Damage):
                after_last = -np.inf if last is None else last + step
                self.damage.append(_Unshown(after_last if np.isnan(got.time_s) else got.time_s - start_s, got.words))
                continue
            time_s = got.time - start_s if got.time is not None else (0.0 if last is None else last + step)
            last = time_s
            if plan is not None and got.interlaced_frame:
                plan.off = True
            yield time_s, got
