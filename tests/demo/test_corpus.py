"""The demo corpus is what it says: real codecs, true captions and times, always the same bytes, some files broken."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.demo import corpus
from pipeline.demo._synthesis import COLORS, NOTES, SHAPES, ogg_with_serial
from pipeline.sources.files import Config, FilesSource


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int], float]:
    folder, started = tmp_path_factory.mktemp("corpus"), time.process_time()
    counts = corpus.build(folder)
    return folder, counts, time.process_time() - started


def listing(folder: Path) -> pa.Table:
    return pa.concat_tables(FilesSource(Config(path=str(folder))).list())


def test_the_counts_are_the_samples(built: tuple[Path, dict[str, int], float]) -> None:
    folder, counts, _ = built
    rows = listing(folder).to_pylist()
    assert counts["samples"] == len(rows) >= 400
    for name, count in counts.items():
        if name != "samples":
            assert count == sum(row["sample_id"].startswith(f"{name}/") for row in rows)
    pairs = {"pictures": "image", "clips": "video", "tones": "audio", "speech": "audio"}
    for row in rows:
        if role := pairs.get(row["sample_id"].split("/")[0]):
            assert row[f"{role}_uri"]
            assert row["text_uri"]


def test_small_and_quick(built: tuple[Path, dict[str, int], float]) -> None:
    folder, _, cpu_s = built
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 25e6
    assert cpu_s < 30


@pytest.mark.slow
def test_the_same_bytes_each_time(built: tuple[Path, dict[str, int], float], tmp_path: Path) -> None:
    def digests(folder: Path) -> dict[str, str]:
        files = (path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    corpus.build(tmp_path)
    first = digests(built[0])
    assert digests(tmp_path) == first
    corpus.build(tmp_path, seed=1)
    assert sum(first.get(name) == digest for name, digest in digests(tmp_path).items()) < 0.2 * len(first)


def test_pictures_show_what_their_captions_say(built: tuple[Path, dict[str, int], float]) -> None:
    from PIL import Image

    formats, modes = set(), set()
    for text in sorted((built[0] / "pictures").glob("*.txt")):
        (path,) = (p for p in text.parent.glob(f"{text.stem}.*") if p != text)
        caption = text.read_text().split()
        with Image.open(path) as image:
            image.load()
            formats.add(image.format)
            modes.add(image.mode)
            if image.mode != "RGB" or "ring" in caption:
                continue
            ground = np.asarray(image)[2, 2].astype(int)
            assert np.abs(ground - COLORS[caption[-2]]).max() < 24
            colors = np.abs(np.asarray(image).astype(int) - COLORS[caption[2]]).max(-1)
            share = (colors < 24).mean()
        assert 0.005 < share < 0.6, f"{path.name}: {share:.3f} of it is {caption[2]}"
    assert formats == {"JPEG", "PNG"}
    assert {"RGB", "L", "P", "RGBA", "LA"} <= modes


def test_clips_are_h264_and_aac_and_sound_like_their_shape(built: tuple[Path, dict[str, int], float]) -> None:
    import av

    for path in sorted((built[0] / "clips").glob("*.mp4"))[::7]:
        color, shape = path.stem.split("-")[1:]
        with av.open(str(path)) as container:
            assert container.streams.video[0].codec_context.name == "h264"
            assert container.streams.audio[0].codec_context.name == "aac"
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
            fps = float(container.streams.video[0].average_rate or 0)
        with av.open(str(path)) as container:
            rate = container.streams.audio[0].rate
            samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
        assert len(samples) / rate == pytest.approx(len(frames) / fps, abs=0.15)
        spectrum = np.abs(np.fft.rfft(samples))
        assert np.argmax(spectrum) * rate / len(samples) == pytest.approx(SHAPES[shape], abs=3)

        centers = [
            np.argwhere(np.abs(frame.astype(int) - COLORS[color]).max(-1) < 60).mean(0)
            for frame in (frames[0], frames[-1])
        ]
        down, right = centers[1] - centers[0]
        words = (
            path.with_suffix(".txt") if path.with_suffix(".txt").exists() else path.with_suffix(".srt")
        ).read_text()
        expected = {
            "from left to right": right > 40,
            "from right to left": right < -40,
            "downwards": down > 40,
            "upwards": down < -40,
            "not at all": abs(down) + abs(right) < 5,
        }
        assert [move for move in expected if move in words and expected[move]], f"{path.name}: {words!r}"


def test_timed_captions_end_with_their_clip(built: tuple[Path, dict[str, int], float]) -> None:
    import av

    subtitles = sorted((built[0] / "clips").glob("*.srt"))
    assert len(subtitles) == 10
    for path in subtitles:
        last = path.read_text().split(" --> ")[-1].split("\n")[0]
        hours, minutes, seconds = last.replace(",", ".").split(":")
        with av.open(str(path.with_suffix(".mp4"))) as container:
            stream = container.streams.video[0]
            assert stream.duration is not None
            duration_s = float(stream.duration * stream.time_base)
        assert int(hours) * 3600 + int(minutes) * 60 + float(seconds) == pytest.approx(duration_s, abs=0.05)


def test_sounds_are_what_their_texts_say(built: tuple[Path, dict[str, int], float]) -> None:
    import soundfile

    formats = set()
    for path in sorted(p for p in (built[0] / "tones").iterdir() if p.suffix != ".txt"):
        samples, rate = soundfile.read(path)
        formats.add(soundfile.info(path).format)
        names = path.with_suffix(".txt").read_text().strip().split(": ")[1].split(", ")
        assert len(samples) / rate == pytest.approx(0.4 * len(names), abs=0.05)
        for name, piece in zip(names, np.array_split(samples, len(names)), strict=True):
            spectrum = np.abs(np.fft.rfft(piece, 4 * len(piece)))
            assert np.argmax(spectrum) * rate / (4 * len(piece)) == pytest.approx(NOTES[name], abs=5)
    assert formats == {"WAV", "FLAC", "OGG"}
    for path in sorted(p for p in (built[0] / "speech").iterdir() if p.suffix != ".txt"):
        samples, rate = soundfile.read(path)
        words = path.with_suffix(".txt").read_text().split()
        syllables = sum(len(word) // 2 for word in words)
        assert len(samples) / rate == pytest.approx(0.25 * syllables + 0.12 * len(words), abs=0.05)
        assert 0.05 < np.sqrt(np.mean(samples**2)) < 0.5
        assert np.abs(samples).max() <= 1


def test_every_broken_file_fails_in_its_decoder(built: tuple[Path, dict[str, int], float]) -> None:
    import av
    import soundfile
    from PIL import Image

    folder = built[0] / "broken"
    for path in folder.iterdir():
        if path.suffix in (".jpg", ".png"):
            with pytest.raises(OSError), Image.open(path) as image:  # noqa: PT011 - Pillow's words vary
                image.load()
        elif path.suffix == ".mp4":
            with pytest.raises(av.error.FFmpegError), av.open(str(path)) as container:
                list(container.decode(video=0))
        elif path.suffix == ".flac":
            with pytest.raises(soundfile.LibsndfileError):
                soundfile.read(path)
            with pytest.raises(av.error.FFmpegError), av.open(str(path)) as container:
                list(container.decode(audio=0))
        else:
            assert path.read_bytes() == b""
    assert len(list(folder.iterdir())) == 6


def test_an_ogg_page_keeps_its_checksum() -> None:
    """By hand: a page of no data, its checksum from the CRC of RFC 3533 in another formulation."""

    def crc(page: bytes) -> int:
        remainder = int.from_bytes(page + bytes(4), "big")
        for bit in range(len(page) * 8 + 31, 31, -1):
            if remainder >> bit & 1:
                remainder ^= 0x104C11DB7 << (bit - 32)
        return remainder

    page = b"OggS\0\x02" + bytes(8) + b"\xaa\xbb\xcc\xdd" + bytes(4) + bytes(4) + b"\x01\x03xyz"
    done = ogg_with_serial(page + page, 5)
    half = done[: len(page)]
    assert done == half * 2
    assert half[14:18] == (5).to_bytes(4, "little")
    assert int.from_bytes(half[22:26], "little") == crc(half[:22] + bytes(4) + half[26:])
    assert half[:14] + half[18:22] + half[26:] == page[:14] + page[18:22] + page[26:]
