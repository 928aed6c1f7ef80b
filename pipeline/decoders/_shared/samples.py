"""Samples of a sound: of a file that libsndfile reads, or of a container."""

from __future__ import annotations

import io
import itertools
import math
from collections import deque
from collections.abc import Iterator
from typing import Any, BinaryIO, Protocol

import numpy as np

from pipeline.core.errors import SampleError
from pipeline.core.media import Span
from pipeline.decoders._shared.container import Container, Damage
from pipeline.decoders._shared.demuxer import decoding
from pipeline.storage.blob import Blob

_PREROLL_S = 1.0
_VORBIS_S = 0.03  # FFmpeg gives the times of its blocks, which are short and long, up to 20 ms off
_LOST_S = 0.002
_MAX_GAP_S = 600.0
_GRID_FRAMES = 64


class Samples(Protocol):
    """Mono samples of one stream at its own rate, by index from the stream's first sample."""

    rate: int
    span: Span

    def read(self, start: int, stop: int) -> np.ndarray:
        """float32 samples ``[start, stop)``; fewer where the stream ends."""
        ...

    def close(self) -> None: ...


class SoundfileSamples:
    """WAV, FLAC, OGG, MP3, AIFF... through libsndfile, which counts frames exactly."""

    def __init__(self, blob: Blob) -> None:
        import soundfile

        with decoding():
            self.source = blob.open() if blob.local else io.BytesIO(blob.read())
            try:
                self.file = soundfile.SoundFile(_descriptor(self.source), closefd=False)
            except soundfile.LibsndfileError as error:  # its own message names the descriptor
                self.source.close()
                raise SampleError("corrupt", f"libsndfile: {error.error_string}") from error
        self.rate = int(self.file.samplerate)
        self.frames = int(self.file.frames)
        self.format = str(self.file.format)
        self.kept = np.zeros(0, np.float32)
        self.position = 0
        try:
            self._check_end()
        except SampleError:
            self.close()
            raise
        self.span = Span(0.0, self.frames / self.rate, 1 / self.rate)

    def _check_end(self) -> None:
        """Headers lie about the length: the last sample must be there."""
        if self.frames <= 0:
            raise SampleError("empty", "no samples in it")
        with decoding():
            self.file.seek(self.frames - 1)
            last = self.file.read(1, dtype="float32", always_2d=True)
            self.file.seek(0)
        if len(last) != 1:
            raise SampleError("corrupt", f"the header promises {self.frames} samples, more than there are")

    def read(self, start: int, stop: int) -> np.ndarray:
        """Reads on from what it kept of the window before, so that neighbours need no seek."""
        stop = min(stop, self.frames)
        with decoding():
            if not self.position - len(self.kept) <= start <= self.position:
                self.file.seek(min(start, self.frames))
                self.kept, self.position = np.zeros(0, np.float32), min(start, self.frames)
            data = self.file.read(max(0, stop - self.position), dtype="float32", always_2d=True)
        mono = data[:, 0] if data.shape[1] == 1 else data.mean(axis=1, dtype=np.float32)
        joined = np.concatenate([self.kept, mono])
        origin = self.position - len(self.kept)
        self.position += len(data)
        self.kept = joined[-self.rate :].copy()
        return joined[max(0, start - origin) : max(0, stop - origin)].copy()

    def close(self) -> None:
        self.file.close()
        self.source.close()


def _descriptor(file: BinaryIO) -> int | BinaryIO:
    """The descriptor of a whole file of this machine, which libsndfile then reads without Python; else the file."""
    try:
        return file.fileno()
    except OSError:
        return file


class ContainerSamples:
    """A container's audio stream. Reads onwards; seeks, with a second of preroll, only to jump.

    A packet that cannot be decoded is silence, so that what comes after it keeps its time; samples of which most
    are lost that way are ``corrupt``.
    """

    def __init__(self, container: Container, span: Span) -> None:
        self.container, self.span = container, span
        self.rate = int(container.audio.codec_context.sample_rate or 0)
        self.start_s = (container.start_s or 0.0) + span.start_s
        self.total = round((span.end_s - span.start_s) * self.rate)
        self.seeks = not container.guesses_times
        self.jitter_s = _VORBIS_S if container.audio.codec_context.name == "vorbis" else _LOST_S
        self.frames: Iterator[Any] | None = None
        self.kept: deque[np.ndarray] = deque()
        self.kept_from = 0
        self.kept_to = 0
        self.lost: list[tuple[int, int]] = []
        self.broken: str | None = None
        self.why = ""
        self.grid: tuple[int, int] | None = None

    def read(self, start: int, stop: int) -> np.ndarray:
        try:
            with decoding():
                return self._read(start, stop)
        except SampleError:
            self.frames = None  # asked again, it reads again and says the same
            raise

    def _read(self, start: int, stop: int) -> np.ndarray:
        if self.frames is None or start < self.kept_from or start > self.kept_to + 10 * self.rate:
            self._jump(start)
        while self.kept_to < stop and self._decode():
            self._drop(start - self.rate)
        self._drop(start - self.rate)
        samples = self._taken(start, stop)
        lost = sum(max(0, min(end, stop) - max(begin, start)) for begin, end in self.lost)
        gone = max(0, min(stop, self.total) - start - len(samples)) if self.broken else 0
        if 2 * (lost + gone) > len(samples) + gone:
            raise SampleError("corrupt", self.broken or self.why)
        return samples

    def _taken(self, start: int, stop: int) -> np.ndarray:
        """``[start, stop)`` of what is kept; silence before it."""
        pieces = [np.zeros(max(0, min(self.kept_from, stop) - start) if self.kept else 0, np.float32)]
        at = self.kept_from
        for piece in self.kept:
            pieces.append(piece[max(0, start - at) : max(0, stop - at)])
            at += len(piece)
        return np.concatenate(pieces)

    def _drop(self, before: int) -> None:
        while self.kept and self.kept_from + len(self.kept[0]) <= before:
            self.kept_from += len(self.kept.popleft())
        self.lost = [(begin, end) for begin, end in self.lost if end > before]

    def _jump(self, start: int) -> None:
        """Place the reader at or before sample ``start``; the first frame's time says where it is."""
        if self.grid is None:
            self.grid = self._measured_grid()
        for to_s in (self.start_s + start / self.rate - _PREROLL_S, None):
            early = to_s is not None and to_s > self.start_s + 10.0 and self.seeks
            self.container.rewind(to_s if early else None)
            self.frames = self.container.decoded(self.container.audio)
            self.kept.clear()
            self.lost, self.broken = [], None
            self.kept_from = self.kept_to = -1
            self._decode()
            if not early or 0 <= self.kept_from <= start:
                break
        if self.kept_from < 0:
            self.kept_from = self.kept_to = 0

    def _measured_grid(self) -> tuple[int, int]:
        """``(samples of the first frame, common divisor of the others' lengths)``; ``(0, 1)`` where ticks are fine.

        Matroska rounds times to milliseconds. A stream's frames begin on a grid of samples, which after
        a seek says to the sample what the rounded time says roughly.
        """
        if float(self.container.audio.time_base) * self.rate <= 1:
            return 0, 1
        self.container.rewind(None)
        decoded = self.container.decoded(self.container.audio)
        frames = itertools.islice((got for got in decoded if not isinstance(got, Damage)), _GRID_FRAMES)
        first, *lengths = [frame.samples for frame in frames] or [0]
        return first, math.gcd(*lengths[:-1]) or 1  # the last frame of a short stream may be cut

    def _snapped(self, index: int) -> int:
        first, step = self.grid or (0, 1)
        near = first + round((index - first) / step) * step
        tick = float(self.container.audio.time_base) * self.rate
        return near if abs(near - index) <= tick / 2 + 1 < step / 2 else index

    def _decode(self) -> bool:
        """Take the next frame; False at the end of the stream."""
        for got in self.frames or ():
            if not isinstance(got, Damage):
                self._take(got)
                return True
            self.broken = self.broken or got.words
        return False

    def _take(self, frame: Any) -> None:
        if frame.sample_rate != self.rate:
            raise SampleError("unsupported", f"sample rate changes from {self.rate} to {frame.sample_rate} Hz")
        index = round((frame.time - self.start_s) * self.rate) if frame.time is not None else max(0, self.kept_to)
        if self.kept_to < 0:
            self.kept_from = self.kept_to = max(0, self._snapped(index))
            self._lose(0, self.kept_to)
        gap = index - self.kept_to
        if gap > _MAX_GAP_S * self.rate:
            raise SampleError("corrupt", f"a gap of {gap / self.rate:.0f} s in the sound")
        if gap > (_LOST_S if self.broken else self.jitter_s) * self.rate:
            self._lose(self.kept_to, index)
            self._keep(np.zeros(gap, np.float32))
        self.broken = None
        self._keep(_mono(frame))

    def _lose(self, start: int, stop: int) -> None:
        """Note that damage, if there was any just now, took the place of ``[start, stop)``."""
        if self.broken:
            self.lost.append((start, stop))
            self.why = self.broken

    def _keep(self, mono: np.ndarray) -> None:
        self.kept.append(mono)
        self.kept_to += len(mono)

    def close(self) -> None:
        self.frames = None


def _mono(frame: Any) -> np.ndarray:
    """Mean of the channels, float32 in [-1, 1]."""
    data = np.asarray(frame.to_ndarray())
    channels = frame.layout.nb_channels
    if not frame.format.is_planar:
        data = data.reshape(-1, channels).T
    if data.dtype == np.uint8:
        data = (data.astype(np.float32) - 128) / 128
    elif np.issubdtype(data.dtype, np.integer):
        data = data.astype(np.float64) / -float(np.iinfo(data.dtype).min)
    return np.ascontiguousarray(data.mean(axis=0, dtype=np.float64).astype(np.float32))
