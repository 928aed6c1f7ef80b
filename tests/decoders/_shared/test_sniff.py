from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.decoders._shared.sniff import HEAD_BYTES, sniff


@pytest.mark.parametrize(
    "prose",
    [
        b"The free software that we know",
        b"The wide river, the skip, the moov",
        b"FORM 10-K of a company",
        b"ID3 tags are explained here",
        b"OggS is four letters",
        b"RIFF raff",
        b"FWS and CWS",
        b"G" * 4096,
        b"BM or not BM",
        b"IIRO, MMOR and FOVb are words of no language",
        b"FOVb is the first word here",
        "MMORPGé and IIROé are words, FOVbé too".encode(),
        "Ünïcode first".encode(),
        b'{"segments": []}',
    ],
)
def test_prose_that_begins_like_a_header_is_not_media(prose: bytes) -> None:
    assert sniff(prose) is None


@pytest.mark.parametrize(
    ("folder", "suffixes", "allowed"),
    [
        ("images", {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".avif", ".tif"}, {"image"}),
        ("videos", {".mp4", ".mov", ".mkv", ".webm", ".avi", ".mpg"}, {"container"}),
        ("audio", {".wav", ".flac", ".ogg", ".mp3"}, {"audio"}),
        ("text", {".txt", ".html", ".srt", ".vtt", ".csv", ".jsonl"}, {None}),
    ],
)
def test_real_files_are_known_by_their_first_bytes(
    data: Path, folder: str, suffixes: set[str], allowed: set[str | None]
) -> None:
    for path in sorted((data / folder).iterdir()):
        if path.suffix.lower() in suffixes:
            with path.open("rb") as file:
                assert sniff(file.read(HEAD_BYTES)) in allowed, path.name


def test_the_content_counts_not_the_name(data: Path) -> None:
    for name, shape in {
        "dv_jpeg_named.mp4": "image",
        "dv_mp4_named.jpg": "container",
        "dv_ogg_named.mp3": "audio",
        "dv_html_named.jpg": None,
        "torchcodec__animated.heic": "image",
        "pillow__seek_too_large.tif": "image",
        "torchcodec__sine_mono_mp3.swf": "container",
    }.items():
        assert sniff((data / "bad" / name).read_bytes()[:HEAD_BYTES]) == shape, name


def test_an_icon_is_a_picture_whatever_it_is_called(tmp_path: Path) -> None:
    """FFmpeg would read it as a video of one frame."""
    from PIL import Image

    path = tmp_path / "favicon"
    Image.new("RGB", (16, 16), (0, 9, 0)).save(path, "ICO")
    assert sniff(path.read_bytes()[:HEAD_BYTES]) == "image"
