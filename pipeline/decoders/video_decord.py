"""Video frames through decord, with times from PyAV's packets.

It is not the default, see docs/decisions/0010. decord's times are float32, and wrong for some files. It refuses other
files or counts their frames wrong; those are decoded by PyAV.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from pipeline.core.errors import SampleError
from pipeline.core.media import Frames, Sampling, Span
from pipeline.decoders._shared.container import Container
from pipeline.decoders._shared.pictures import PictureLimits, Pictures
from pipeline.decoders._shared.sampling import instants, not_before, shown_at
from pipeline.decoders.video_pyav import PyavReader

_SEEKABLE = ("mov", "matroska")
"""Formats in which decord seeks to the requested frame. In AVI and MPEG program streams it is dozens of frames off."""


class Config(PictureLimits):
    """`decord`, with one thread."""

    kind: Literal["decord"] = "decord"


class DecordReader:
    """Frames of a local file's video stream, over ``span``; falls back to ``PyavReader``."""

    def __init__(self, path: str, container: Container, span: Span, limits: PictureLimits) -> None:
        self.path, self.container, self.span, self.limits = path, container, span, limits
        self.fallback = PyavReader(container, span, limits)
        self.reader: Any = None
        self.times_s: np.ndarray | None = None

    def frames(self, sampling: Sampling, start_s: float, end_s: float) -> Frames:
        """The sampled pictures of ``[start_s, end_s)``. Raises ``SampleError``."""
        if self.times_s is None:
            self.times_s = self._open_decord()
        if len(self.times_s):
            span = self.span
            asked = instants(sampling, max(start_s, span.start_s), min(end_s, span.end_s), span.tolerance_s)
            index = shown_at(self.times_s, asked, span.tolerance_s)
            try:
                pixels = self._pixels(index)
            except SampleError:
                raise
            except Exception:  # DECORDError and others; PyAV decides
                self.times_s = np.zeros(0)
            else:
                if pixels is not None:
                    return Frames(pixels, not_before(self.times_s[index], start_s, span))
        return self.fallback.frames(sampling, start_s, end_s)

    def _pixels(self, index: np.ndarray) -> np.ndarray | None:
        """The pictures [T, H, W, 3] of frames ``index``; None if PyAV must decode them.

        That is the case if the size changes, or if the last two frames have equal pixels, because decord may repeat a
        picture after a damaged packet.
        """
        unique, counts = np.unique(index, return_counts=True)
        pictures = Pictures(len(index), self.limits)
        before: np.ndarray | None = None
        for number, count in zip(unique.tolist(), counts.tolist(), strict=True):
            picture = self.reader[number].asnumpy()
            self.limits.check_frame(picture.shape[1], picture.shape[0])
            if pictures.size not in (None, picture.shape[:2]):
                return None
            is_repeated = before is not None and np.array_equal(before, picture)
            pictures.add(picture, count)
            before = picture
        return None if len(unique) > 1 and is_repeated else pictures.pixels

    def _open_decord(self) -> np.ndarray:
        """Opens the file with decord. Returns the frames' times; none if decord counts frames differently."""
        import decord

        decord.logging.set_level(decord.logging.QUIET)
        if self.container.video_streams != 1 or not self.container.format.startswith(_SEEKABLE):
            return np.zeros(0)
        times = _frame_times(self.container)
        if not len(times) or np.any(np.diff(times) <= 0):
            return np.zeros(0)
        try:
            self.reader = self._reader()
            if self.limits.shorter_edge is not None:
                height, width = (int(edge) for edge in self.reader[0].shape[:2])
                self.limits.check_frame(width, height)
                if (scaled := self.limits.scaled(height, width)) != (height, width):
                    self.reader = self._reader(height=scaled[0], width=scaled[1])
            return times if len(self.reader) == len(times) else np.zeros(0)
        except SampleError:
            raise
        except Exception:  # decord refuses what PyAV may read
            return np.zeros(0)

    def _reader(self, **size: int) -> Any:
        import decord

        return decord.VideoReader(self.path, ctx=decord.cpu(0), num_threads=1, **size)


def _frame_times(container: Container) -> np.ndarray:
    """Presentation times of all frames, from the packets; empty if a packet has none.

    Also empty if pictures are stored after a key frame and shown before it (open groups of pictures), because decord
    counts those wrong after a seek.
    """
    import av

    stamps = []
    key: int | None = None
    container.rewind(None)
    try:
        for packet in container.av.demux(container.video):
            if packet.size == 0:
                continue
            if packet.pts is None or packet.is_discard or packet.is_corrupt:
                return np.zeros(0)
            key = packet.pts if packet.is_keyframe else key
            if key is not None and packet.pts < key:
                return np.zeros(0)
            stamps.append(packet.pts)
    except av.FFmpegError:
        return np.zeros(0)
    base = float(container.video.time_base) if stamps else 1.0
    return np.sort(np.array(stamps, np.float64)) * base - (container.start_s or 0.0)
