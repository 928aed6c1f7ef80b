"""Sound files that are several streams one after the other, as ``cat a.ogg b.ogg`` makes them.

Radio archives and recorders write such files. Players play all of them; a reader that believes the first
stream's header, or the times, which begin anew with each stream, loses what comes after it.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.storage import Blob, reading

_CHUNK = 1 << 20
_OGG_FIRST = b"OggS\x00\x02"
_HEAD = 1 << 16


def is_joined(blob: Blob, format: str) -> bool:
    """Whether a bare FLAC or an Ogg file (FFmpeg's names) begins anew. Raises ``SampleError`` (missing, io)."""
    if format == "ogg":
        return _ogg(blob)
    if format == "flac":
        return sum(_is_stream_info(found) for found in _found(blob, b"fLaC", 8)) > 1
    return False


def after_mp3(blob: Blob) -> int:
    """Bytes after those that the header frame of an MP3 counts; 0 where none counts them."""
    head = blob.read(10)
    start = 0
    if head[:3] == b"ID3" and len(head) == 10:
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    with reading(blob.uri), blob.open() as file:
        file.seek(start)
        first = file.read(256)
    place = max(first.find(b"Xing"), first.find(b"Info"))
    if place < 0 or not first[place + 7] & 2:
        return 0
    counted = place + 8 + (4 if first[place + 7] & 1 else 0)
    return max(0, blob.size() - start - int.from_bytes(first[counted : counted + 4], "big"))


def _ogg(blob: Blob) -> bool:
    """A page that begins a stream, after pages that go on with one."""
    head = blob.read(_HEAD)
    place = head.find(_OGG_FIRST)
    while head.startswith(_OGG_FIRST, place) and place + 27 <= len(head):
        segments = head[place + 27 : place + 27 + head[place + 26]]
        place += 27 + len(segments) + sum(segments)
    return any(at > place for at, _ in _places(blob, _OGG_FIRST, 0))


def _is_stream_info(head: bytes) -> bool:
    return len(head) == 8 and head[4] & 0x7F == 0 and head[5:] == b"\x00\x00\x22"


def _found(blob: Blob, pattern: bytes, size: int) -> Iterator[bytes]:
    return (found for _, found in _places(blob, pattern, size))


def _places(blob: Blob, pattern: bytes, size: int) -> Iterator[tuple[int, bytes]]:
    """Where ``pattern`` is in a file, with the ``size`` bytes from there on."""
    keep = max(size, len(pattern)) - 1
    with reading(blob.uri), blob.open() as file:
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
