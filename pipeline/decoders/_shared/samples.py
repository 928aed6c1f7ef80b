"""Samples of a sound, and those of a file that libsndfile reads."""

from __future__ import annotations

import io
from typing import BinaryIO, Protocol

import numpy as np

from pipeline.core.errors import SampleError
from pipeline.core.media import Span
from pipeline.decoders._shared.demuxer import decoding
from pipeline.storage.blob import Blob


class Samples(Protocol):
    """Mono samples of one stream, indexed from the stream's first sample."""

    rate: int
    """Samples per second."""
    span: Span

    def read(self, start: int, stop: int) -> np.ndarray:
        """float32 samples ``[start, stop)``; fewer if the stream ends before."""
        ...

    def close(self) -> None: ...


class SoundfileSamples:
    """Samples of a WAV, FLAC, OGG, MP3, AIFF... file through libsndfile, which seeks to the exact sample."""

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
        """Raises ``SampleError`` if the last sample cannot be read: the header's length may be wrong."""
        if self.frames <= 0:
            raise SampleError("empty", "no samples in it")
        with decoding():
            self.file.seek(self.frames - 1)
            last = self.file.read(1, dtype="float32", always_2d=True)
            self.file.seek(0)
        if len(last) != 1:
            raise SampleError("corrupt", f"the header promises {self.frames} samples, more than there are")

    def read(self, start: int, stop: int) -> np.ndarray:
        """Keeps the last second that it read, so that reading the next window needs no seek."""
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
    """The file descriptor, if there is one, which libsndfile reads without calling Python; else the file object."""
    try:
        return file.fileno()
    except OSError:
        return file
