"""Camera raw files, made by hand after TIFF 6.0 and DNG 1.7.1."""

from __future__ import annotations

import io
import struct
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from pipeline.core.errors import SampleError
from pipeline.decoders import DecodersConfig, OpenMedia, open_media
from pipeline.decoders._shared.camera_raw import camera_raw, orientation, preview
from pipeline.decoders.image import ImageConfig
from pipeline.storage.blob import Blob

Entry = tuple[int, int, list[int]]
"""Tag, type (1: byte, 3: short, 4: long), values."""
CFA, DNG_VERSION, ORIENTATION, SUB_IFDS = 32803, 50706, 274, 330
CONFIG = DecodersConfig()
PREVIEWS = DecodersConfig(image=ImageConfig(previews=True))


def _jpeg(width: int, height: int) -> bytes:
    """Left half red, right half blue."""
    values = np.zeros((height, width, 3), np.uint8)
    values[:, : width // 2, 0], values[:, width // 2 :, 2] = 255, 255
    buffer = io.BytesIO()
    PIL.Image.fromarray(values).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def _tiff(
    *directories: list[Entry], order: str = "<", sub: list[Entry] | None = None, after: bytes = b"", lead: bytes = b""
) -> bytes:
    """A TIFF of a chain of directories; ``sub``: one more, which the first names as a directory below it."""
    data = bytearray((b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(lead)) + lead)

    def add(entries: list[Entry]) -> None:
        start = len(data)
        end = start + 2 + 12 * len(entries) + 4
        data.extend(bytes(end - start))
        struct.pack_into(f"{order}H", data, start, len(entries))
        for i, (tag, kind, values) in enumerate(entries):
            code = {1: "B", 3: "H", 4: "I"}[kind]
            packed = struct.pack(f"{order}{len(values)}{code}", *values)
            if len(packed) > 4:
                packed, more = struct.pack(f"{order}I", len(data)), packed
                data.extend(more)
            struct.pack_into(f"{order}HHI", data, start + 2 + 12 * i, tag, kind, len(values))
            data[start + 2 + 12 * i + 8 : start + 2 + 12 * i + 12] = packed.ljust(4, b"\0")
        links.append(end - 4)

    links: list[int] = []
    places: list[int] = []
    for number, entries in enumerate(directories):
        if number == 0 and sub is not None:
            size = 2 + 12 * (len(entries) + 1) + 4 + sum(4 * len(v) if len(v) > 1 else 0 for _, _, v in entries)
            entries = [*entries, (SUB_IFDS, 4, [len(data) + size])]
        places.append(len(data))
        add(entries)
        if number == 0 and sub is not None:
            assert entries[-1][2] == [len(data)]
            add(sub)
            links.pop()
    for link, place in zip(links, places[1:], strict=False):
        struct.pack_into(f"{order}I", data, link, place)
    return bytes(data) + after


THUMBNAIL: list[Entry] = [(254, 4, [1]), (256, 3, [16]), (257, 3, [8]), (262, 3, [2])]
SENSOR: list[Entry] = [(254, 4, [0]), (256, 3, [64]), (257, 3, [48]), (262, 3, [CFA])]
RAW = {
    "DNG": _tiff([*THUMBNAIL, (DNG_VERSION, 1, [1, 4, 0, 0])]),
    "NEF": _tiff(THUMBNAIL, sub=SENSOR),
    "NEF of big numbers first": _tiff(THUMBNAIL, sub=SENSOR, order=">"),
    "ARW": _tiff(THUMBNAIL, THUMBNAIL, sub=SENSOR),
    "PEF": _tiff(SENSOR, THUMBNAIL),
    "second": _tiff(THUMBNAIL, SENSOR),
    "linear": _tiff([(262, 3, [34892])]),
    "CR2": _tiff(THUMBNAIL, lead=b"CR\x02\0\0\0\0\0"),
    "CR3": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom",
    "RAF": b"FUJIFILMCCD-RAW 0201FF383501",
    "ORF": b"IIRO\x08\0\0\0",
    "ORF of big numbers first": b"MMOR\0\0\0\x08",
    "RW2": b"IIU\0\x08\0\0\0",
    "X3F": b"FOVb\0\0\x02\0",
}


@pytest.mark.parametrize("name", list(RAW))
@pytest.mark.parametrize("suffix", [".dng", ".tif", ".jpg", ""])
def test_a_raw_file_is_no_picture(tmp_path: Path, name: str, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(RAW[name] + bytes(512))
    with pytest.raises(SampleError, match=r"a camera's raw file.*previews: true") as caught, _open(path) as media:
        media.image()
    assert caught.value.kind == "unsupported"


def _open(path: Path, config: DecodersConfig = CONFIG) -> OpenMedia:
    return open_media(Blob(str(path)), "image", config)


@pytest.mark.parametrize("name", list(RAW))
def test_the_largest_preview(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.dng"
    lossless = b"\xff\xd8" + _frame(0xC3, 16) + _frame(0xC1, 12)  # what sensors' values are packed in
    path.write_bytes(RAW[name] + _jpeg(16, 8) + lossless + _jpeg(64, 48) + bytes(9) + _jpeg(32, 24))
    with _open(path, PREVIEWS) as media:
        pixels = media.image().pixels
    assert pixels.shape == (48, 64, 3)
    assert pixels[0, 0, 0] > 200
    assert pixels[0, -1, 2] > 200
    path.write_bytes(RAW[name] + lossless)
    with pytest.raises(SampleError, match="without a preview"), _open(path, PREVIEWS) as media:
        media.image()


def _frame(marker: int, bits: int) -> bytes:
    """The header of a frame of 6000 x 4000."""
    return b"\xff" + bytes([marker]) + struct.pack(">HBHHB", 11, bits, 4000, 6000, 1) + b"\1\x11\0"


def test_directories_that_name_thousands_of_others_take_no_time() -> None:
    entries = struct.pack("<HHII", SUB_IFDS, 4, 1_000_000, 8) * 1000
    data = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 1000) + entries + bytes(4)
    many = data + (struct.pack("<H", 1000) + entries + bytes(4)) * 40
    started = time.process_time()
    assert camera_raw(many) is None
    assert time.process_time() - started < 1.0


def test_a_preview_is_turned_as_its_raw_file_says(tmp_path: Path) -> None:
    path = tmp_path / "a.nef"
    turned = [*THUMBNAIL, (ORIENTATION, 3, [6])]
    path.write_bytes(_tiff(turned, sub=SENSOR) + _jpeg(64, 48))
    assert orientation(path.read_bytes()) == 6
    with _open(path, PREVIEWS) as media:
        pixels = media.image().pixels
    assert pixels.shape == (64, 48, 3)  # a quarter turn clockwise: what was left is above
    assert pixels[0, 0, 0] > 200
    assert pixels[-1, 0, 2] > 200


def test_other_pictures_are_none(tmp_path: Path) -> None:
    for format in ("TIFF", "JPEG", "PNG"):
        buffer = io.BytesIO()
        PIL.Image.new("RGB", (40, 30)).save(buffer, format)
        assert camera_raw(buffer.getvalue()) is None
    with pytest.raises(SampleError):
        preview(b"no picture")


def test_directories_that_name_each_other_end() -> None:
    data = bytearray(_tiff(THUMBNAIL, THUMBNAIL))
    struct.pack_into("<I", data, len(data) - 4, 8)  # the second's next is the first
    assert camera_raw(bytes(data)) is None
    for size in range(len(data)):
        camera_raw(bytes(data[:size]))
    rng = np.random.default_rng(0)
    for _ in range(300):
        broken = bytearray(RAW["ARW"])
        for at in rng.integers(4, len(broken), 6):
            broken[at] = rng.integers(256)
        camera_raw(bytes(broken))
        orientation(bytes(broken))


def test_all_real_pictures_are_no_raw_files(data: Path) -> None:
    for path in sorted((data / "images").iterdir()):
        assert camera_raw(path.read_bytes()) is None, path.name


def test_a_preview_with_bytes_that_fill_up_is_read() -> None:
    """Before a marker there may be any number of 0xFF (ITU T.81, B.1.1.2)."""
    picture = _jpeg(64, 32)
    at = picture.index(b"\xff\xc0")
    filled = picture[:at] + b"\xff\xff\xff" + picture[at:]
    assert PIL.Image.open(io.BytesIO(filled)).size == (64, 32)
    raw = _tiff(THUMBNAIL, sub=SENSOR, after=filled)
    assert preview(raw).startswith(filled)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_part_of_a_lossy_sensor_image_is_no_preview(order: str) -> None:
    """Such a tile is a JPEG of 8 bits, and larger than the preview."""
    tile, small = _jpeg(512, 512), _jpeg(256, 171)
    places = [10_000, 10_000 + len(tile)]
    for tag in (273, 324):
        lossy: list[Entry] = [*SENSOR[:3], (262, 3, [34892]), (tag, 4, places)]
        head = _tiff([*THUMBNAIL, (DNG_VERSION, 1, [1, 4, 0, 0])], lossy, order=order)
        raw = head.ljust(10_000, b"\0") + tile + tile + small
        assert preview(raw) == small


def test_many_bytes_that_fill_up_take_no_time() -> None:
    raw = _tiff(THUMBNAIL, sub=SENSOR, after=(b"\xff\xd8" + b"\xff" * 50_000) * 100)
    started = time.process_time()
    with pytest.raises(SampleError):
        preview(raw)
    assert time.process_time() - started < 1


def test_a_preview_behind_thousands_of_tiles_is_found() -> None:
    tile, small = _jpeg(16, 16), _jpeg(64, 32)
    places = [20_000 + i * len(tile) for i in range(1200)]
    lossy: list[Entry] = [*SENSOR[:3], (262, 3, [34892]), (324, 4, places)]
    head = _tiff([*THUMBNAIL, (DNG_VERSION, 1, [1, 4, 0, 0])], lossy)
    assert preview(head.ljust(20_000, b"\0") + tile * 1200 + small) == small


def test_millions_of_offsets_take_no_time_or_memory() -> None:
    """Of all directories together a bounded number is read, and only JPEGs are kept."""
    lossy: list[Entry] = [(262, 3, [34892]), (273, 4, [7] * 90_000), (324, 4, [8] * 90_000)]
    raw = _tiff(*[lossy] * 12)
    started = time.process_time()
    with pytest.raises(SampleError):
        preview(raw)
    assert time.process_time() - started < 2
