"""Bytes, streams, characters and sound of a window: beyond a limit a file fails in one line, before it costs."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from pydantic import ValidationError

from pipeline.core.errors import SampleError
from pipeline.core.media import Modality
from pipeline.decoders import DecodersConfig, open_media
from pipeline.storage.blob import Blob
from tests.stages.media_fixtures import write_clip


def refused(path: Path | str, hint: Modality | None = None, **config: Any) -> SampleError:
    with pytest.raises(SampleError) as caught:
        open_media(Blob(str(path)), hint, DecodersConfig(**config)).close()
    assert "\n" not in str(caught.value)
    return caught.value


def write_tracks(path: Path, count: int) -> None:
    """A container of ``count`` short sound tracks."""
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("pcm_s16le", rate=8000, layout="mono") for _ in range(count)]
        for stream in streams:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts = 8000, 0
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))


@pytest.mark.parametrize("name", ["a.txt", "a.wav", "a.mp4", "a.png"])
def test_bytes_of_any_file(tmp_path: Path, name: str) -> None:
    import PIL.Image

    (tmp_path / "a.txt").write_text("words " * 100)
    soundfile.write(tmp_path / "a.wav", np.zeros(8000), 8000)
    write_clip(tmp_path / "a.mp4", 1.0)
    PIL.Image.new("RGB", (50, 50)).save(tmp_path / "a.png")
    size = (tmp_path / name).stat().st_size
    hint: Modality | None = "text" if name == "a.txt" else None
    error = refused(tmp_path / name, hint, max_bytes=size - 1)
    assert (error.kind, error.message) == ("limit", f"{size} bytes, over max_bytes {size - 1}")
    open_media(Blob(str(tmp_path / name)), hint, DecodersConfig(max_bytes=size)).close()


def test_a_file_that_is_too_big_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.mp4").open("wb") as file:
        file.truncate(100 << 30)  # no disk has it: a hole
    assert refused(tmp_path / "a.mp4").kind == "limit"


def test_streams_of_a_container(tmp_path: Path) -> None:
    write_tracks(tmp_path / "a.mkv", 20)
    error = refused(tmp_path / "a.mkv", max_streams=19)
    assert (error.kind, error.message) == ("limit", "20 streams, over max_streams 19")
    with open_media(Blob(str(tmp_path / "a.mkv")), None, DecodersConfig(max_streams=20)) as media:
        assert list(media.info.spans) == ["audio"]
    assert refused(tmp_path / "a.mkv", "audio", max_streams=19).kind == "limit"
    nameless = (tmp_path / "a.mkv").rename(tmp_path / "a.unknown")
    assert refused(nameless, max_streams=19).kind == "limit"


def test_as_many_streams_as_ffmpeg_takes(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", 1.0)
    content = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(_with_tracks(content, 1000))
    assert refused(tmp_path / "a.mp4", max_streams=999).message == "1000 streams, over max_streams 999"
    (tmp_path / "a.mp4").write_bytes(_with_tracks(content, 1001))
    assert refused(tmp_path / "a.mp4").kind == "memory"  # FFmpeg's own word for it
    with pytest.raises(ValidationError):
        DecodersConfig(max_streams=1001)


def _with_tracks(content: bytes, count: int) -> bytes:
    """An MP4 with its first track ``count`` times. Its boxes: 4 bytes of length, 4 of name; ``moov`` is the last."""
    moov = content.index(b"moov") - 4
    track = content.index(b"trak", moov) - 4
    length = struct.unpack_from(">I", content, track)[0]
    copied = content[track : track + length] * (count - 1)
    size = struct.unpack_from(">I", content, moov)[0] + len(copied)
    return content[:moov] + struct.pack(">I", size) + content[moov + 4 : track] + copied + content[track:]


@pytest.mark.parametrize("suffix", ["ogg", "flac"])
def test_sound_files_joined_into_one(tmp_path: Path, suffix: str) -> None:
    soundfile.write(tmp_path / f"one.{suffix}", 0.1 * np.sin(np.arange(8000) / 5), 8000)
    (tmp_path / f"a.{suffix}").write_bytes((tmp_path / f"one.{suffix}").read_bytes() * 6)
    error = refused(tmp_path / f"a.{suffix}", max_streams=5)
    assert (error.kind, error.message) == ("limit", "6 streams, over max_streams 5")
    with open_media(Blob(str(tmp_path / f"a.{suffix}")), None, DecodersConfig(max_streams=6)) as media:
        assert media.waveform(8000, 0.0, 9.0).samples.shape == (48000,)


def test_characters_of_a_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("ü" * 1000)
    error = refused(tmp_path / "a.txt", "text", text={"max_characters": 999})
    assert (error.kind, error.message) == ("limit", "1000 characters of text, over max_characters 999")
    open_media(Blob(str(tmp_path / "a.txt")), "text", DecodersConfig(text={"max_characters": 1000})).close()  # type: ignore[arg-type]
    (tmp_path / "a.html").write_text(f"<html><!--{'x' * 5000}--><p>few words</html>")
    open_media(Blob(str(tmp_path / "a.html")), "text", DecodersConfig(text={"max_characters": 20})).close()  # type: ignore[arg-type]


def test_sound_of_one_window(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", np.zeros(48_000 * 60, np.int16), 48_000)
    config = DecodersConfig(audio={"max_window_bytes": 48_000 * 4 * 10})  # type: ignore[arg-type]
    with open_media(Blob(str(tmp_path / "a.flac")), None, config) as media:
        assert len(media.waveform(16_000, 50.0, 60.0).samples) == 160_000
        assert len(media.waveform(16_000, 50.0, 1e9).samples) == 160_000  # no more than there is
        tracemalloc.start()
        with pytest.raises(SampleError, match="60 seconds of sound at 48000 Hz are 11520000 bytes") as caught:
            media.waveform(16_000, 0.0, 60.0)
        assert caught.value.kind == "limit"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()


def test_the_defaults_pass_all_real_media(data: Path) -> None:
    kinds = [
        _kind(path) for folder in ("audio", "images", "videos") for path in sorted((data / folder).iterdir())[::10]
    ]
    assert len(kinds) > 20
    assert "limit" not in kinds


def _kind(path: Path) -> str | None:
    try:
        open_media(Blob(str(path)), None, DecodersConfig()).close()
    except SampleError as error:
        return error.kind
    return None
