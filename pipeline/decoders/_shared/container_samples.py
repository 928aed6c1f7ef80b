"""Samples of the audio stream of a container, through PyAV."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np

from pipeline.core.errors import SampleError
from pipeline.core.media import Span
from pipeline.decoders._shared.container import Container, Damage
from pipeline.decoders._shared.demuxer import decoding

_PREROLL_S = 1.0
_VORBIS_JITTER_S = 0.03
"""FFmpeg's times of Vorbis blocks, which have two lengths, are off by up to 20 ms."""
_JITTER_S = 0.002
_MAX_GAP_S = 600.0
_GRID_FRAMES = 64


class ContainerSamples:
    """Samples of a container's audio stream. Reads sequentially; seeks, with a second of preroll, only to jump.

    A packet that cannot be decoded is replaced by silence, so that the samples after it keep their times. A request of
    which most samples are lost that way raises ``SampleError`` (``corrupt``).
    """

    def __init__(self, container: Container, span: Span) -> None:
        self.container, self.span = container, span
        self.rate = int(container.audio.codec_context.sample_rate or 0)
        self.start_s = (container.start_s or 0.0) + span.start_s
        self.total = round((span.end_s - span.start_s) * self.rate)
        self.seeks = not container.guesses_times
        self.jitter_s = _VORBIS_JITTER_S if container.audio.codec_context.name == "vorbis" else _JITTER_S
        self.frames: Iterator[Any] | None = None
        self.kept: deque[np.ndarray] = deque()
        """Decoded samples ``[kept_from, kept_to)``."""
        self.kept_from = 0
        self.kept_to = 0
        self.lost: list[tuple[int, int]] = []
        """Ranges of samples that are silence because of damage."""
        self.pending_damage: str | None = None
        """Error of a damaged packet since the last decoded frame."""
        self.last_damage = ""
        self.grid: tuple[int, int] | None = None

    def read(self, start: int, stop: int) -> np.ndarray:
        try:
            with decoding():
                return self._read(start, stop)
        except SampleError:
            self.frames = None  # so that the same request reads again and raises the same error
            raise

    def _read(self, start: int, stop: int) -> np.ndarray:
        if self.frames is None or start < self.kept_from or start > self.kept_to + 10 * self.rate:
            self._jump(start)
        while self.kept_to < stop and self._decode():
            self._drop(start - self.rate)
        self._drop(start - self.rate)
        samples = self._slice(start, stop)
        lost = sum(max(0, min(end, stop) - max(begin, start)) for begin, end in self.lost)
        missing = max(0, min(stop, self.total) - start - len(samples)) if self.pending_damage else 0
        if 2 * (lost + missing) > len(samples) + missing:
            raise SampleError("corrupt", self.pending_damage or self.last_damage)
        return samples

    def _slice(self, start: int, stop: int) -> np.ndarray:
        """Kept samples ``[start, stop)``; silence before the first kept one."""
        pieces = [np.zeros(max(0, min(self.kept_from, stop) - start) if self.kept else 0, np.float32)]
        at = self.kept_from
        for piece in self.kept:
            pieces.append(piece[max(0, start - at) : max(0, stop - at)])
            at += len(piece)
        return np.concatenate(pieces)

    def _drop(self, before: int) -> None:
        """Forgets arrays and damage before sample ``before``."""
        while self.kept and self.kept_from + len(self.kept[0]) <= before:
            self.kept_from += len(self.kept.popleft())
        self.lost = [(begin, end) for begin, end in self.lost if end > before]

    def _jump(self, start: int) -> None:
        """Moves the reader to sample ``start`` or before. The time of the first frame then gives its position."""
        if self.grid is None:
            self.grid = self._measure_grid()
        for to_s in (self.start_s + start / self.rate - _PREROLL_S, None):
            early = to_s is not None and to_s > self.start_s + 10.0 and self.seeks
            self.container.rewind(to_s if early else None)
            self.frames = self.container.decoded(self.container.audio)
            self.kept.clear()
            self.lost, self.pending_damage = [], None
            self.kept_from = self.kept_to = -1
            self._decode()
            if not early or 0 <= self.kept_from <= start:
                break
        if self.kept_from < 0:
            self.kept_from = self.kept_to = 0

    def _measure_grid(self) -> tuple[int, int]:
        """``(samples of the first frame, common divisor of the others' lengths)``; ``(0, 1)`` if times are exact.

        Matroska rounds times to milliseconds. The frames of a stream begin on a grid of samples. With it, the exact
        sample of a frame is computed from its rounded time.
        """
        if float(self.container.audio.time_base) * self.rate <= 1:
            return 0, 1
        self.container.rewind(None)
        decoded = self.container.decoded(self.container.audio)
        frames = itertools.islice((got for got in decoded if not isinstance(got, Damage)), _GRID_FRAMES)
        first, *lengths = [frame.samples for frame in frames] or [0]
        return first, math.gcd(*lengths[:-1]) or 1  # the last frame of a short stream may be shorter

    def _snapped(self, index: int) -> int:
        """The sample of the grid that is next to ``index``, if rounding of times explains the difference."""
        first, step = self.grid or (0, 1)
        near = first + round((index - first) / step) * step
        tick = float(self.container.audio.time_base) * self.rate
        return near if abs(near - index) <= tick / 2 + 1 < step / 2 else index

    def _decode(self) -> bool:
        """Decodes the next frame; False at the end of the stream."""
        for got in self.frames or ():
            if not isinstance(got, Damage):
                self._add(got)
                return True
            self.pending_damage = self.pending_damage or got.message
        return False

    def _add(self, frame: Any) -> None:
        if frame.sample_rate != self.rate:
            raise SampleError("unsupported", f"sample rate changes from {self.rate} to {frame.sample_rate} Hz")
        index = round((frame.time - self.start_s) * self.rate) if frame.time is not None else max(0, self.kept_to)
        if self.kept_to < 0:
            self.kept_from = self.kept_to = max(0, self._snapped(index))
            self._mark_lost(0, self.kept_to)
        gap = index - self.kept_to
        if gap > _MAX_GAP_S * self.rate:
            raise SampleError("corrupt", f"a gap of {gap / self.rate:.0f} s in the sound")
        if gap > (_JITTER_S if self.pending_damage else self.jitter_s) * self.rate:
            self._mark_lost(self.kept_to, index)
            self._keep(np.zeros(gap, np.float32))
        self.pending_damage = None
        self._keep(_mono(frame))

    def _mark_lost(self, start: int, stop: int) -> None:
        """Records samples ``[start, stop)`` as lost, if there was damage since the last decoded frame."""
        if self.pending_damage:
            self.lost.append((start, stop))
            self.last_damage = self.pending_damage

    def _keep(self, mono: np.ndarray) -> None:
        self.kept.append(mono)
        self.kept_to += len(mono)

    def close(self) -> None:
        self.frames = None


def _mono(frame: Any) -> np.ndarray:
    """Mean over the channels, float32 in [-1, 1]."""
    data = np.asarray(frame.to_ndarray())
    channels = frame.layout.nb_channels
    if not frame.format.is_planar:
        data = data.reshape(-1, channels).T
    if data.dtype == np.uint8:
        data = (data.astype(np.float32) - 128) / 128
    elif np.issubdtype(data.dtype, np.integer):
        data = data.astype(np.float64) / -float(np.iinfo(data.dtype).min)
    return np.ascontiguousarray(data.mean(axis=0, dtype=np.float64).astype(np.float32))
