"""Reads that fail or are incomplete are continued; a permanent error is `io`, never the end of the file."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.core.errors import SampleError
from pipeline.core.media import Modality, UniformSampling
from pipeline.decoders import DecodersConfig, open_media
from pipeline.storage import ranges
from pipeline.storage.blob import Blob
from pipeline.storage.ranges import RangedFile
from tests.stages.media_fixtures import write_clip
from tests.support import faulty
from tests.support.faulty import Fault

pytestmark = pytest.mark.usefixtures("hasty")


@pytest.fixture
def data(tmp_path: Path) -> bytes:
    data = random.Random(0).randbytes(100_000)
    (tmp_path / "a").write_bytes(data)
    return data


@pytest.mark.parametrize("head_bytes", [10, 50_000, 1 << 20])
def test_it_reads_like_a_file(tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch, head_bytes: int) -> None:
    """Also if little is kept, and each request brings little."""
    monkeypatch.setattr(ranges, "_HEAD_BYTES", head_bytes)
    monkeypatch.setattr(ranges, "_LEAST_BYTES", 1000)
    monkeypatch.setattr(ranges, "_MOST_BYTES", 7000)
    monkeypatch.setattr(ranges, "_KEEP_BYTES", 9000)
    draw = random.Random(1)
    with Blob(f"faulty://{tmp_path}/a").open() as file:
        assert isinstance(file, RangedFile)
        model = io.BytesIO(data)
        for _ in range(300):
            if draw.random() < 0.5:
                offset, whence = draw.choice([(draw.randrange(110_000), 0), (-draw.randrange(5000), 2), (0, 1)])
                assert file.seek(offset, whence) == model.seek(offset, whence)
            size = draw.choice([-1, 0, 1, 7, 5000])
            assert file.read(size) == model.read(size)
            assert file.tell() == model.tell()
        file.seek(10)
        buffer = bytearray(16)
        assert file.readinto(buffer) == 16
        assert buffer == data[10:26]
        with pytest.raises(ValueError, match="seek to -1"):
            file.seek(-1)


@pytest.mark.parametrize("error", ["reset", "timeout", "asyncio", "read_timeout", "slow_down", "too_many", "server"])
def test_a_range_that_fails_is_asked_for_again_at_its_position(
    tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    monkeypatch.setattr(ranges, "_HEAD_BYTES", 10)
    faulty.plan(tmp_path, {"a": Fault("read", error, times=3)})
    with Blob(f"faulty://{tmp_path}/a").open() as file:
        file.seek(500)
        assert file.read(1000) == data[500:1500]
        assert file.read() == data[1500:]


def test_a_short_range_is_continued(tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "_HEAD_BYTES", 10)
    for times in (4, 10**6):
        faulty.plan(tmp_path, {"a": Fault("read", "short", times=times, after=10_000)})
        with Blob(f"faulty://{tmp_path}/a").open() as file:
            file.seek(70)
            assert file.read(50_000) == data[70:50_070]
            assert file.tell() == 50_070


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (Fault("read", "short", after=0), "io", "truncated read: 0 of 1000 bytes"),
        (Fault("read", "reset"), "io", "Connection reset"),
        (Fault("read", "read_timeout"), "io", "Read timeout"),
        (Fault("read", "denied_s3"), "io", "AccessDenied"),
        (Fault("read", "missing"), "missing", "no such file"),
    ],
)
def test_what_stays_broken(
    tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch, fault: Fault, kind: str, words: str
) -> None:
    monkeypatch.setattr(ranges, "_HEAD_BYTES", 10)
    with Blob(f"faulty://{tmp_path}/a").open() as file:
        faulty.plan(tmp_path, {"a": fault})
        file.seek(99_000)
        with pytest.raises(SampleError, match=words) as caught:
            file.read(1000)
    assert caught.value.kind == kind


# -- through the decoders ------------------------------------------------------------------------


def _write(folder: Path) -> dict[str, Path]:
    write_clip(folder / "clip.mp4", 4.0)
    rate, time = 16000, np.arange(160_000) / 16000
    for name in ("sound.wav", "sound.flac", "sound.ogg", "sound.mp3"):
        soundfile.write(folder / name, 0.3 * np.sin(2000 * time), rate)
    (folder / "words.txt").write_text("some words\n" * 500)
    return {path.name: path for path in folder.iterdir()}


def _decoded(uri: str) -> np.ndarray | str:
    hint: Modality | None = "text" if uri.endswith(".txt") else None
    with open_media(Blob(uri), hint, DecodersConfig()) as media:
        if "video" in media.info.spans:
            return media.frames(UniformSampling(4), 0.0, 4.0).pixels
        if "audio" in media.info.spans:
            return media.waveform(16000, 0.0, 10.0).samples
        return media.text(None, None).text


NAMES = ("clip.mp4", "sound.wav", "sound.flac", "sound.ogg", "sound.mp3", "words.txt")


@pytest.mark.parametrize("name", NAMES)
def test_decoders_see_the_whole_file_or_an_io_failure(tmp_path: Path, name: str) -> None:
    """Wherever a read is cut off, the result is never `corrupt`, `unsupported` or other values."""
    path = _write(tmp_path)[name]
    whole = _decoded(str(path))
    for fault in (
        Fault("read", "short", times=3, after=1000),
        Fault("read", "reset", times=3),
        Fault("open", "slow_down", times=2),
        Fault("info", "server", times=2),
    ):
        faulty.plan(tmp_path, {name: fault})
        np.testing.assert_array_equal(_decoded(f"faulty://{path}"), whole)
    for fault in (
        Fault("read", "short", after=10),
        Fault("read", "reset", after=path.stat().st_size // 2),
        Fault("read", "timeout", after=path.stat().st_size - 1),
        Fault("open", "reset"),
    ):
        faulty.plan(tmp_path, {name: fault})
        got = _decoded_or_kind(f"faulty://{path}")
        if not (isinstance(got, str) and got == "io"):  # the last bytes were never asked for
            assert fault.after > 1000
            np.testing.assert_array_equal(got, whole)


def _decoded_or_kind(uri: str) -> np.ndarray | str:
    try:
        return _decoded(uri)
    except SampleError as error:
        return error.kind
