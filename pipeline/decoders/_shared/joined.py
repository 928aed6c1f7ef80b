"""Sound files that are several concatenated streams, as ``cat a.ogg b.ogg`` makes them.

Radio archives and recorders write such files, and players play all streams. A decoder that uses the first stream's
header, or the time stamps, which start again at zero in each stream, loses the other streams. Here each stream is
decoded as a separate file.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import BinaryIO, cast

import numpy as np

from pipeline.core.errors import SampleError
from pipeline.core.media import Span
from pipeline.decoders._shared.samples import Samples
from pipeline.storage.blob import Blob
from pipeline.storage.ranges import source_errors

_CHUNK = 1 << 20
_OGG_FIRST = b"OggS\x00\x02"
_HEAD = 10
_PAGE = 27 + 255
_BUFFER = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Part(Blob):
    """Bytes ``[start, stop)`` of a file, as a file of its own."""

    start: int
    stop: int

    def size(self) -> int:
        return self.stop - self.start

    def read(self, limit: int | None = None) -> bytes:
        with source_errors(self.uri), self.open() as file:
            return file.read(-1 if limit is None else limit)

    def open(self) -> BinaryIO:
        return cast(BinaryIO, io.BufferedReader(_Range(super().open(), self.start, self.stop), _BUFFER))


class _Range(io.RawIOBase):
    """Bytes ``[start, stop)`` of an open file, as a raw stream."""

    def __init__(self, file: BinaryIO, start: int, stop: int) -> None:
        self.file, self.start, self.stop, self.at = file, start, stop, start

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = max(
            self.start, offset + {io.SEEK_SET: self.start, io.SEEK_CUR: self.at, io.SEEK_END: self.stop}[whence]
        )
        return self.tell()

    def tell(self) -> int:
        return self.at - self.start

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # io says any buffer
        view = memoryview(buffer)[: max(0, self.stop - self.at)]
        self.file.seek(self.at)
        data = self.file.read(len(view))
        view[: len(data)] = data
        self.at += len(data)
        return len(data)

    def close(self) -> None:
        self.file.close()
        super().close()


class JoinedSamples:
    """Samples of concatenated streams. Each is decoded by a separate reader; one reader is open at a time.

    Raises:
        SampleError: an error of a stream, with the stream's number; ``unsupported`` if the sample rate changes.
    """

    def __init__(self, parts: Sequence[Part], open_one: Callable[[Part], Samples]) -> None:
        self.parts, self.open_one = parts, open_one
        self.number = -1
        self.current: Samples | None = None
        self.rate, counts = 0, []
        for number in range(len(parts)):
            samples = self._reader(number)
            self.rate = self.rate or samples.rate
            if samples.rate != self.rate:
                message = f"sample rate changes from {self.rate} to {samples.rate} Hz"
                raise SampleError("unsupported", f"stream {number + 1} of {len(parts)}: {message}")
            counts.append(round((samples.span.end_s - samples.span.start_s) * samples.rate))
        self.starts = [0, *accumulate(counts)]
        self.span = Span(0.0, self.starts[-1] / self.rate, 1 / self.rate)

    def read(self, start: int, stop: int) -> np.ndarray:
        pieces = [np.zeros(0, np.float32)]
        at, stop = start, min(stop, self.starts[-1])
        while at < stop:
            number = bisect_right(self.starts, at) - 1
            origin, end = self.starts[number], min(stop, self.starts[number + 1])
            piece = self._reader(number).read(at - origin, end - origin)
            silence = np.zeros(end - at - len(piece), np.float32)  # so that the streams after it keep their times
            pieces += [piece, silence]
            at = end
        return np.concatenate(pieces)

    def _reader(self, number: int) -> Samples:
        """The reader of a stream. Opens it, and closes the previous one, if it is not open."""
        if self.current is None or number != self.number:
            self.close()
            try:
                self.current, self.number = self.open_one(self.parts[number]), number
            except SampleError as error:
                raise SampleError(error.kind, f"stream {number + 1} of {len(self.parts)}: {error.message}") from error
        return self.current

    def close(self) -> None:
        if self.current is not None:
            self.current.close()
            self.current = None


def parts_of(blob: Blob) -> list[Part]:
    """The streams of an Ogg or FLAC file; none if there is only one. Raises ``SampleError`` (``missing``, ``io``)."""
    head = blob.read(_HEAD)
    if head.startswith(_OGG_FIRST):
        starts = _ogg_starts(blob)
    elif head.startswith((b"fLaC", b"ID3")):
        starts = [at for at, found in _find_all(blob, b"fLaC", 8) if _is_stream_info(found)]
    else:
        return []
    starts[:1] = [0] * len(starts[:1])
    if not starts[1:]:
        return []
    ends = zip(starts, [*starts[1:], blob.size()], strict=True)
    parts = [Part(blob.uri, blob.allowed, blob.on_wait, start=start, stop=stop) for start, stop in ends]
    for part in parts:
        part.share(blob)
    return parts


def after_mp3(blob: Blob) -> int | None:
    """Number of bytes after the end of an MP3 that its header frame states; None if it states none."""
    head = blob.read(10)
    start = 0
    if head[:3] == b"ID3" and len(head) == 10:
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    with source_errors(blob.uri), blob.open() as file:
        file.seek(start)
        first = file.read(256)
    tag = max(first.find(b"Xing"), first.find(b"Info"))
    if tag < 0 or len(first) < tag + 16 or not first[tag + 7] & 2:
        return None
    counted = tag + 8 + (4 if first[tag + 7] & 1 else 0)
    return max(0, blob.size() - start - int.from_bytes(first[counted : counted + 4], "big"))


def _ogg_starts(blob: Blob) -> list[int]:
    """Offsets of the streams: 0, and each page that begins a stream and does not follow another such page directly."""
    starts, end = [0], 0
    for at, page in _find_all(blob, _OGG_FIRST, _PAGE):
        if at > end:
            starts.append(at)
        end = at + 27 + page[26] + sum(page[27 : 27 + page[26]]) if len(page) > 27 else at
    return starts


def _is_stream_info(head: bytes) -> bool:
    return len(head) == 8 and head[4] & 0x7F == 0 and head[5:] == b"\x00\x00\x22"


def _find_all(blob: Blob, pattern: bytes, size: int) -> Iterator[tuple[int, bytes]]:
    """Yields each offset of ``pattern`` in a file, with the ``size`` bytes from there on."""
    keep = max(size, len(pattern)) - 1
    with source_errors(blob.uri), blob.open() as file:
        origin, data = 0, file.read(_CHUNK)
        while data:
            more = file.read(_CHUNK)
            data += more
            limit = len(data) - (keep if more else 0)
            at = data.find(pattern)
            while 0 <= at < limit:
                yield origin + at, data[at : at + size]
                at = data.find(pattern, at + 1)
            origin, data = origin + limit, data[limit:]
            if not more:
                return
