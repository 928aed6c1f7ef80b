"""A camera's raw file: what its sensor saw, which only a raw converter makes a picture of. Most hold previews, as JPEG.

Sources: TIFF 6.0; DNG 1.7.1, chapter 2 and 4; the first bytes that ExifTool and LibRaw know the others by.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from pipeline.errors import SampleError

_TIFF = {b"II*\0": "<", b"MM\0*": ">"}
_NAMES = {
    b"FUJIFILMCCD-RAW": "RAF",
    b"IIRO": "ORF",
    b"IIRS": "ORF",
    b"MMOR": "ORF",
    b"IIU\0": "RW2",
    b"FOVb": "X3F",
    b"\0MRM": "MRW",
    b"II\x1a\0\0\0HEAPCCDR": "CRW",
}
MAGIC = tuple(_NAMES)
"""First bytes of the raw files that are neither TIFF nor MP4."""
_SUB_IFDS, _PHOTOMETRIC, _DNG_VERSION, _ORIENTATION = 330, 262, 50706, 274
_OF_SENSORS = (32803, 34892)
"""Photometric interpretations: a colour filter array, and linear values of a sensor."""
_MAX_DIRECTORIES, _MAX_ENTRIES = 32, 1000
_JPEG = b"\xff\xd8\xff"
_MAX_PREVIEWS, _HEADER_BYTES = 1000, 1 << 20
"""Places that look like a JPEG, and bytes of each that are searched for its size."""


def camera_raw(data: bytes) -> str | None:
    """Returns the name of a raw format by the content of a file (or its first bytes); None for any other file."""
    for magic, name in _NAMES.items():
        if data.startswith(magic):
            return name
    if data[4:12] == b"ftypcrx ":
        return "CR3"
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
    """Returns the largest JPEG in a raw file, from its first byte on.

    Raises:
        SampleError: ``unsupported``, there is none that can be decoded.
    """
    import simplejpeg

    best, most = -1, 0
    at = data.find(_JPEG)
    for _ in range(_MAX_PREVIEWS):
        if at < 0:
            break
        try:
            height, width, _, _ = simplejpeg.decode_jpeg_header(memoryview(data)[at : at + _HEADER_BYTES], strict=False)
        except ValueError:  # the lossless JPEG of sensors, or no JPEG
            pass
        else:
            if height * width > most:
                best, most = at, height * width
        at = data.find(_JPEG, at + 1)
    if best < 0:
        raise SampleError("unsupported", "a camera's raw file without a preview in JPEG")
    return data[best:]


def orientation(data: bytes) -> int:
    """Returns how the picture of a raw file is turned, 1 to 8 as in EXIF; 1 where its first directory says nothing."""
    first = next(_directories(data), {}) if data[:4] in _TIFF else {}
    found = first.get(_ORIENTATION, 1)
    return found if 1 <= found <= 8 else 1


def _directories(data: bytes) -> Iterator[dict[int, int]]:
    """Yields tag -> first value (of bytes, shorts and longs) of the directories of a TIFF, and of those below them."""
    order = _TIFF[data[:4]]
    todo, seen = [_number(data, 4, order, "I")], set[int]()
    while todo and len(seen) < _MAX_DIRECTORIES:
        at = todo.pop(0)
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
            if tag == _SUB_IFDS:
                places = (_number(data, place + 4 * i, order, "I") for i in range(min(values, _MAX_DIRECTORIES)))
                todo.extend(places)
        yield found
        todo.append(_number(data, at + 2 + 12 * count, order, "I"))


def _number(data: bytes, at: int, order: str, code: str) -> int:
    """The number at ``at``; 0 beyond the end."""
    size = struct.calcsize(code)
    return int(struct.unpack_from(order + code, data, at)[0]) if 0 <= at <= len(data) - size else 0
