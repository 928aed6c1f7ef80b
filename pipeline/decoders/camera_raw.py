"""A camera's raw file: what its sensor saw, which only a raw converter makes a picture of. Most hold previews, as JPEG.

Sources: TIFF 6.0; DNG 1.7.1, chapter 2 and 4; the first bytes that ExifTool and LibRaw know the others by.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator

from pipeline.errors import SampleError

_TIFF = {b"II*\0": "<", b"MM\0*": ">"}
_NAMES = {
    b"FUJIFILMCCD-RAW": "RAF",
    b"IIRO\x08\0": "ORF",
    b"IIRS\x08\0": "ORF",
    b"MMOR\0\0": "ORF",
    b"IIU\0": "RW2",
    b"\0MRM": "MRW",
    b"II\x1a\0\0\0HEAPCCDR": "CRW",
}
_SUB_IFDS, _PHOTOMETRIC, _DNG_VERSION, _ORIENTATION = 330, 262, 50706, 274
_OF_SENSORS = (32803, 34892)
"""Photometric interpretations: a colour filter array, and linear values of a sensor."""
_MAX_DIRECTORIES, _MAX_ENTRIES = 32, 1000
_JPEG = b"\xff\xd8\xff"
_MAX_PREVIEWS, _MAX_SEGMENTS = 1000, 100
"""Places that look like a JPEG, and segments of each that are looked at for its size."""
_DECODED, _TABLES = (0xC0, 0xC1, 0xC2), (0xC4, 0xC8, 0xCC)
"""Markers of frames that are decoded; and of segments that are no frames."""


def camera_raw(data: bytes) -> str | None:
    """Returns the name of a raw format by the content of a file (or its first bytes); None for any other file."""
    for magic, name in _NAMES.items():
        if data.startswith(magic):
            return name
    if data[4:12] == b"ftypcrx ":
        return "CR3"
    if data[:4] == b"FOVb" and b"\0" in data[4:8]:
        return "X3F"
    if data[:4] not in _TIFF:
        return None
    if data[8:10] == b"CR":
        return "CR2"
    directories = list(_directories(data))
    if any(_DNG_VERSION in one for one in directories):
        return "DNG"
    if any(one.get(_PHOTOMETRIC) in _OF_SENSORS for one in directories):
        return "a raw format based on TIFF (NEF, ARW, PEF...)"
    return None


def preview(data: bytes) -> bytes:
    """Returns the largest JPEG of 8 bits in a raw file, from its first byte on. A sensor's values are lossless, or have
    more bits.

    Raises:
        SampleError: ``unsupported``, there is none.
    """
    best, most = -1, 0
    at = data.find(_JPEG)
    for _ in range(_MAX_PREVIEWS):
        if at < 0:
            break
        pixels = _jpeg_pixels(data, at)
        if pixels > most:
            best, most = at, pixels
        at = data.find(_JPEG, at + 1)
    if best < 0:
        raise SampleError("unsupported", "a camera's raw file without a preview in JPEG")
    return data[best:]


def _jpeg_pixels(data: bytes, at: int) -> int:
    """Width x height of the JPEG that begins at ``at``; 0 where there is none of 8 bits, baseline or progressive."""
    at += 2
    for _ in range(_MAX_SEGMENTS):
        if at + 9 > len(data) or data[at] != 0xFF:
            return 0
        marker = data[at + 1]
        if marker in _DECODED:
            bits, height, width = struct.unpack_from(">BHH", data, at + 4)
            return int(height * width) if bits == 8 else 0
        if 0xC0 <= marker <= 0xCF and marker not in _TABLES:
            return 0
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0


def orientation(data: bytes) -> int:
    """Returns how the picture of a raw file is turned, 1 to 8 as in EXIF; 1 where its first directory says nothing."""
    first = next(_directories(data), {}) if data[:4] in _TIFF else {}
    found = first.get(_ORIENTATION, 1)
    return found if 1 <= found <= 8 else 1


def _directories(data: bytes) -> Iterator[dict[int, int]]:
    """Yields tag -> first value (of bytes, shorts and longs) of the directories of a TIFF, and of those below them."""
    order = _TIFF[data[:4]]
    todo, seen = deque([_number(data, 4, order, "I")]), set[int]()
    for _ in range(_MAX_DIRECTORIES):
        if not todo:
            return
        at = todo.popleft()
        if at in seen or not 8 <= at < len(data) - 2:
            continue
        seen.add(at)
        count = min(_number(data, at, order, "H"), _MAX_ENTRIES)
        found: dict[int, int] = {}
        for entry in range(at + 2, min(at + 2 + 12 * count, len(data) - 11), 12):
            tag, kind, values = struct.unpack_from(f"{order}HHI", data, entry)
            code = {1: "B", 3: "H", 4: "I", 13: "I"}.get(kind)
            if code is None:
                continue
            size = struct.calcsize(code)
            place = entry + 8 if size * values <= 4 else _number(data, entry + 8, order, "I")
            found[tag] = _number(data, place, order, code)
            if tag == _SUB_IFDS and len(todo) < _MAX_DIRECTORIES:
                places = (_number(data, place + 4 * i, order, "I") for i in range(min(values, _MAX_DIRECTORIES)))
                todo.extend(places)
        yield found
        todo.append(_number(data, at + 2 + 12 * count, order, "I"))


def _number(data: bytes, at: int, order: str, code: str) -> int:
    """The number at ``at``; 0 beyond the end."""
    size = struct.calcsize(code)
    return int(struct.unpack_from(order + code, data, at)[0]) if 0 <= at <= len(data) - size else 0
