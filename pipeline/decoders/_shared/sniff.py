"""Detects what a file is by its first bytes."""

from __future__ import annotations

from typing import Literal

from pipeline.decoders._shared import camera_raw

Shape = Literal["image", "audio", "container"]

HEAD_BYTES = 4096

_IMAGE = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n",
    b"GIF8",
    b"II*\x00",
    b"MM\x00*",
    b"II+\x00",
    b"MM\x00+",
    b"\x00\x00\x00\x0cjP  ",
    b"\xff\x4f\xff\x51",
    b"8BPS",
)
_ICONS = (b"\0\0\1\0", b"\0\0\2\0")
_HEIF_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
_AUDIO = (b"fLaC", b"ID3", b"FORM", b".snd", b"caff")
_CONTAINER = (
    b"\x1aE\xdf\xa3",
    b"\x30\x26\xb2\x75",
    b"FLV\x01",
    b"\x00\x00\x01\xba",
    b"\x00\x00\x01\xb3",
    b"FWS",
    b"CWS",
)


def is_heif(head: bytes) -> bool:
    """True if the file's brand is HEIC or AVIF."""
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS


_RIFF: dict[bytes, Shape] = {b"WEBP": "image", b"WAVE": "audio"}


def sniff(head: bytes) -> Shape | None:
    """Whether a file is an image, a sound file or a container; None if no magic number matches, as for plain text."""
    if head.startswith(_IMAGE) or (head[:2] == b"BM" and head[6:10] == b"\0\0\0\0"):
        return "image"
    if (
        head[:4] in _ICONS and head[4:5] != b"\0" and head[5:6] + head[9:10] == b"\0\0"
    ):  # number of icons; reserved bytes
        return "image"
    if head[4:8] == b"ftyp":
        return "image" if is_heif(head) or camera_raw.camera_raw(head) else "container"
    if camera_raw.camera_raw(head):
        return "image"
    if is_words(head):  # a text may begin like a header: "FORM 10-K"
        return None
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12], "container")
    if head.startswith((b"OggS", *_AUDIO)) or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE6 in (0xE2, 0xE4)):
        return "audio"
    if head.startswith(_CONTAINER) or head[4:8] in (b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "container"
    if len(head) > 188 and head[0] == 0x47 and head[188] == 0x47:
        return "container"
    return None


def is_words(head: bytes) -> bool:
    """True if the first 64 bytes are printable ASCII, which is true for no header of sound or video."""
    return all(32 <= byte < 127 or byte in b"\t\n\r" for byte in head[:64])
