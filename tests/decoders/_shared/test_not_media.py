"""Generated documents, archives and programs are refused, also if FFmpeg takes them for media."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sqlite3
import struct
import sys
import tarfile
import zipfile
from pathlib import Path

import av
import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from pipeline.core.errors import SampleError
from pipeline.core.media import MODALITIES, Modality
from pipeline.decoders import DecodersConfig, open_media
from pipeline.decoders.text import TextDecoderConfig
from pipeline.storage.blob import Blob
from tests.decoders.reference import write_numbered

HINTS: tuple[Modality | None, ...] = (None, *MODALITIES)


NAMES = ("MZ – Mitteldeutsche Zeitung", "BZh – Bezirkszeitung", "MMORPGé", "0707017 is a number – of a kind")


def _jpegs(count: int) -> list[bytes]:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        buffer = io.BytesIO()
        PIL.Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(buffer, "JPEG")
        found.append(buffer.getvalue())
    return found


def _pdf(pictures: list[bytes]) -> bytes:
    streams = (b"1 0 obj <</Filter /DCTDecode>> stream\n" + one + b"\nendstream endobj\n" for one in pictures)
    return b"%PDF-1.4\n" + b"".join(streams) + b"%%EOF"


def _zip(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _tar(pictures: list[bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number, one in enumerate(pictures):
            info = tarfile.TarInfo(f"{number}.jpg")
            info.size = len(one)
            archive.addfile(info, io.BytesIO(one))
    return buffer.getvalue()


def _mp3() -> bytes:
    """Twenty seconds: FFmpeg is sure of it, wherever it is."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.sin(np.arange(320_000) / 9).astype(np.float32) / 2, 16_000, format="MP3")
    return buffer.getvalue()


def _cpio(data: bytes) -> bytes:
    numbers = [1, 0o100644, 0, 0, 1, 0, len(data), 0, 0, 0, 0, 6, 0]
    return b"070701" + b"".join(b"%08X" % one for one in numbers) + b"a.mp3\0" + data


def _old_tar(data: bytes) -> bytes:
    """Without a magic number, as before POSIX."""
    info = tarfile.TarInfo("a.mp3")
    info.size = len(data)
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT)[:512])
    header[257:] = bytes(255)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data


def test_a_tar_archive_without_a_magic_number(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(_old_tar(_mp3()))
    with pytest.raises(SampleError, match="a tar archive, no media"):
        open_media(Blob(str(path)), "audio", DecodersConfig())


def _binary_cpio(data: bytes) -> bytes:
    """The header has 13 numbers of 16 bits: device, inode, mode, user, group, links, device, time, name, size."""
    return struct.pack("<13H", 0o70707, 1, 1, 0o100644, 0, 0, 1, 0, 0, 0, 6, 0, len(data)) + b"a.mp3\0" + data


def _sqlite(folder: Path) -> bytes:
    with sqlite3.connect(folder / "a.db") as database:
        database.execute("create table t (n int)")
    return (folder / "a.db").read_bytes()


def _parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"n": [1]}), sink)
    return sink.getvalue().to_pybytes()


def _files(folder: Path) -> dict[str, bytes]:
    """What each is said to be -> its bytes."""
    pictures = _jpegs(12)
    sound = _mp3()
    late = {f"word/media/{i}.jpg": one for i, one in enumerate(pictures)}
    return {
        "a PDF document": _pdf(pictures),
        "a Word document (DOCX)": _zip({"[Content_Types].xml": bytes(9000), **late}),
        "a PowerPoint presentation (PPTX)": _zip({"ppt/media/a.jpg": pictures[0]}),
        "an Excel workbook (XLSX)": _zip({"xl/workbook.xml": b"<workbook/>"}),
        "a book (EPUB)": _zip({"mimetype": b"application/epub+zip", "a.jpg": pictures[0]}),
        "a ZIP archive": _zip({"a.jpg": pictures[0], "b.jpg": pictures[1]}),
        "a tar archive": _tar(pictures),
        "a cpio archive": _cpio(sound),
        "a disc image (ISO 9660)": bytes(32768) + b"\1CD001\1" + bytes(2041) + sound,
        "a Windows program": b"MZ" + bytes(58) + (128).to_bytes(4, "little") + bytes(64) + b"PE\0\0" + sound,
        "a Windows program of a long beginning": b"MZ"
        + bytes(58)
        + (8192).to_bytes(4, "little")
        + bytes(8192 - 64)
        + b"PE\0\0"
        + sound,
        "a cpio archive of binary numbers": _binary_cpio(sound),
        "a gzip archive": gzip.compress(pictures[0]),
        "a bzip2 archive": bz2.compress(pictures[0]),
        "an xz archive": lzma.compress(pictures[0]),
        "a program (ELF)": Path(sys.executable).resolve().read_bytes()[:20_000] + pictures[0],
        "a SQLite database": _sqlite(folder) + pictures[0],
        "a Parquet file": _parquet(),
        "a Microsoft Office document": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504) + pictures[0],
        "a rich text document": rb"{\rtf1\ansi some words}",
    }


@pytest.mark.parametrize("hint", HINTS)
def test_documents_and_archives_are_named(tmp_path: Path, hint: Modality | None) -> None:
    for name, data in _files(tmp_path).items():
        path = tmp_path / "clip.mp4"
        path.write_bytes(data)
        with pytest.raises(SampleError) as caught:
            open_media(Blob(str(path)), hint, DecodersConfig())
        assert caught.value.kind == "unsupported", name
        assert caught.value.message.startswith(name.partition(" of ")[0]), name
        assert caught.value.message.endswith("no media")


@pytest.mark.parametrize("hint", ["video", "audio", None])
def test_what_ffmpeg_only_guesses_is_no_media(tmp_path: Path, hint: Modality | None) -> None:
    """DuplicateIdError each: FFmpeg says a warning once, and not again, unless it is asked to."""
    pictures = _jpegs(6)
    rng = np.random.default_rng(1)
    filler = [bytes(rng.integers(0, 128, 700, np.uint8)) for _ in pictures]
    unknown = b"ACME CAD\x00\x01" + b"".join(a + b for a, b in zip(filler, pictures, strict=True))
    for suffix in (".bin", ".mjpeg", ".avi"):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(unknown)
        for _ in range(2):
            with pytest.raises(SampleError) as caught:
                open_media(Blob(str(path)), hint, DecodersConfig())
            assert caught.value.kind == "unsupported", suffix
    with av.open(io.BytesIO(unknown)) as container:
        assert container.format.name == "mjpeg"  # what it would have been
    assert "FFmpeg guesses mjpeg, with a score of " in caught.value.message


def test_prose_may_begin_like_one(tmp_path: Path) -> None:
    for words in (
        b"MZ is a pair of letters",
        b"PAR1 is what it begins with",
        b"BZh? No idea.",
        b"Rar! he said",
        *(words.encode() for words in NAMES),
    ):
        (tmp_path / "a.txt").write_bytes(words)
        with open_media(Blob(str(tmp_path / "a.txt")), "text", DecodersConfig()) as media:
            assert media.text(None, None).text == words.decode()


def test_a_text_in_chinese_may_begin_like_a_binary_archive(tmp_path: Path) -> None:
    words = ("q前天" + "我们在公园里看见了一只小狗和一个孩子，他们很高兴。" * 20).encode("gb18030")
    assert words[:2] == b"\x71\xc7"
    (tmp_path / "a.txt").write_bytes(words)
    config = DecodersConfig(text=TextDecoderConfig(encoding="gb18030"))
    with open_media(Blob(str(tmp_path / "a.txt")), "text", config) as media:
        assert media.text(None, None).text == words.decode("gb18030")


def test_what_ffmpeg_is_sure_of_needs_no_known_first_bytes(tmp_path: Path) -> None:
    """A bare stream of H.264 begins with nothing but a start code."""
    write_numbered(tmp_path / "a.mp4", range(0, 800, 40))
    bare = tmp_path / "a.h264"
    with av.open(str(tmp_path / "a.mp4")) as source, av.open(str(bare), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    with open_media(Blob(str(bare)), None, DecodersConfig()) as media:
        assert list(media.info.spans) == ["video"]
