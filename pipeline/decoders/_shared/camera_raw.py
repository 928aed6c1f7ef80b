"""Detects raw files of cameras, and finds the JPEG preview that most of them contain.

A raw file contains the sensor's values, from which only a raw converter can make a picture.

Sources: TIFF 6.0; DNG 1.7.1, chapters 2 and 4; for the other formats the magic numbers of ExifTool and LibRaw.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator

from pipeline.core.errors import SampleError

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
_STRIPS, _TILES = 273, 324
"""Tags of the offsets of the parts of a directory's image."""
_SENSOR_PHOTOMETRIC = (32803, 34892)
"""Photometric interpretations: a colour filter array, and linear values of a sensor."""
_MAX_DIRECTORIES, _MAX_ENTRIES = 32, 1000
_JPEG = b"\xff\xd8\xff"
_MAX_PREVIEWS, _MAX_SEGMENTS, _MAX_FILL = 1000, 100, 16
"""Maximum possible JPEGs that are tried, segments read of each to find its size, and fill bytes before a segment."""
_MAX_PARTS = 100_000
"""Maximum parts of sensors' images that are read, in all."""
_FRAMES, _TABLES = (0xC0, 0xC1, 0xC2), (0xC4, 0xC8, 0xCC)
"""JPEG markers of frames that can be decoded, and of segments in the same range that are not frames."""


def camera_raw(data: bytes) -> str | None:
    """The name of a raw format, by the content of a file or its first bytes; None for any other file."""
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
    if any(one.get(_PHOTOMETRIC) in _SENSOR_PHOTOMETRIC for one in directories):
        return "a raw format based on TIFF (NEF, ARW, PEF...)"
    return None


def preview(data: bytes) -> bytes:
    """The bytes of a raw file from the beginning of its largest 8-bit JPEG that is not part of a sensor's image.

    Raises:
        SampleError: ``unsupported`` if there is none.
    """
    best, most = -1, 0
    sensor_parts = _parts_of_sensors(data) if data[:4] in _TIFF else frozenset()
    tried, at = 0, data.find(_JPEG)
    while at >= 0 and tried < _MAX_PREVIEWS:
        if at not in sensor_parts:
            tried += 1
            if (pixels := _jpeg_pixels(data, at)) > most:
                best, most = at, pixels
        at = data.find(_JPEG, at + 1)
    if best < 0:
        raise SampleError("unsupported", "a camera's raw file without a preview in JPEG")
    return data[best:]


def _jpeg_pixels(data: bytes, at: int) -> int:
    """Width x height of the JPEG at offset ``at``; 0 if it is not an 8-bit baseline or progressive one."""
    at += 2
    for _ in range(_MAX_SEGMENTS):
        for _ in range(_MAX_FILL):  # before a marker
            if data[at : at + 2] == b"\xff\xff":
                at += 1
        if at + 9 > len(data) or data[at] != 0xFF:
            return 0
        marker = data[at + 1]
        if marker in _FRAMES:
            bits, height, width = struct.unpack_from(">BHH", data, at + 4)
            return int(height * width) if bits == 8 else 0
        if 0xC0 <= marker <= 0xCF and marker not in _TABLES:
            return 0
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0


def orientation(data: bytes) -> int:
    """Orientation of a raw file's picture, 1 to 8 as in EXIF; 1 if its first directory has none."""
    first = next(_directories(data), _Directory()) if data[:4] in _TIFF else _Directory()
    found = first.get(_ORIENTATION, 1)
    return found if 1 <= found <= 8 else 1


def _parts_of_sensors(data: bytes) -> frozenset[int]:
    """Offsets of the strips and tiles of sensors' images that are JPEG, which may have 8 bits if they are lossy."""
    order, found, left = _TIFF[data[:4]], set[int](), _MAX_PARTS
    for directory in _directories(data):
        if directory.get(_PHOTOMETRIC) not in _SENSOR_PHOTOMETRIC:
            continue
        for tag in (_STRIPS, _TILES):
            place, code, values = directory.lists.get(tag, (0, "I", 0))
            step = struct.calcsize(code)
            parts = (_number(data, place + step * i, order, code) for i in range(min(values, left)))
            found |= {at for at in parts if data.startswith(_JPEG, at)}
            left -= min(values, left)
    return frozenset(found)


class _Directory(dict[int, int]):
    """A TIFF directory: tag -> first value, for values of type byte, short and long."""

    def __init__(self) -> None:
        self.lists: dict[int, tuple[int, str, int]] = {}
        """Tag -> offset of its values, ``struct`` code of one, and their number."""


def _directories(data: bytes) -> Iterator[_Directory]:
    """Yields the directories of a TIFF and their subdirectories."""
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
        found = _Directory()
        for entry in range(at + 2, min(at + 2 + 12 * count, len(data) - 11), 12):
            tag, kind, values = struct.unpack_from(f"{order}HHI", data, entry)
            code = {1: "B", 3: "H", 4: "I", 13: "I"}.get(kind)
            if code is None:
                continue
            size = struct.calcsize(code)
            place = entry + 8 if size * values <= 4 else _number(data, entry + 8, order, "I")
            found[tag] = _number(data, place, order, code)
            found.lists[tag] = place, code, values
            if tag == _SUB_IFDS and len(todo) < _MAX_DIRECTORIES:
                places = (_number(data, place + 4 * i, order, "I") for i in range(min(values, _MAX_DIRECTORIES)))
                todo.extend(places)
        yield found
        todo.append(_number(data, at + 2 + 12 * count, order, "I"))


def _number(data: bytes, at: int, order: str, code: str) -> int:
    """The number at offset ``at``; 0 beyond the end.

    Args:
        order: byte order, as in ``struct``.
        code: type, as in ``struct``.
    """
    size = struct.calcsize(code)
    return int(struct.unpack_from(order + code, data, at)[0]) if 0 <= at <= len(data) - size else 0
