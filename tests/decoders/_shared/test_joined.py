from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import fsspec
import numpy as np
import pytest
import soundfile

from pipeline.core.errors import SampleError
from pipeline.decoders import DecodersConfig, open_media
from pipeline.decoders._shared import joined as module
from pipeline.decoders._shared.joined import after_mp3, parts_of
from pipeline.storage.blob import Blob
from tests.decoders.reference import opened_for_writing, sound_of

OPUS = {"format": "OGG", "subtype": "OPUS"}
WAYS = {
    "mp3": (".mp3", {}),
    "vorbis": (".ogg", {}),
    "opus": (".ogg", OPUS),
    "flac": (".flac", {}),
}


def _part(path: Path, seconds: float, seed: int, **options: str) -> bytes:
    noise = np.random.default_rng(seed).normal(0, 0.1, round(seconds * 48000)).astype(np.float32)
    soundfile.write(path, noise, 48000, **options)
    return path.read_bytes()


def _cat(folder: Path, way: str, lengths: tuple[float, ...]) -> Path:
    suffix, options = WAYS[way]
    parts = [_part(folder / f"part{suffix}", s, i, **options) for i, s in enumerate(lengths)]
    path = folder / f"joined{suffix}"
    path.write_bytes(b"".join(parts))
    return path


@pytest.mark.parametrize("soundfile_first", [True, False])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("lengths", [(3.0, 2.0), (2.0, 3.0), (2.0, 2.0), (1.0, 0.5, 25.0, 0.7)])
def test_no_second_of_joined_files_is_lost(
    tmp_path: Path, way: str, lengths: tuple[float, ...], soundfile_first: bool
) -> None:
    """Windows, far jumps among them, are what each file alone decodes to, one after the other."""
    suffix, options = WAYS[way]
    same = len(set(lengths)) == 1
    files = [tmp_path / f"{i}{suffix}" for i in range(len(lengths))]
    content = [_part(f, s, 0 if same else i, **options) for i, (f, s) in enumerate(zip(files, lengths, strict=True))]
    path = tmp_path / f"joined{suffix}"
    path.write_bytes(b"".join(content))
    whole = sound_of(path)[0] if way == "mp3" else np.concatenate([_alone(file, soundfile_first) for file in files])
    assert len(whole) / 48000 > sum(lengths) - 0.1
    config = DecodersConfig(audio={"soundfile": soundfile_first})  # type: ignore[arg-type]
    with open_media(Blob(str(path)), "audio", config) as media:
        span = media.info.spans["audio"]
        assert span is not None
        # FFmpeg leaves out an MP3's header frame; by the times it is a frame of silence
        slack = 1152 * len(lengths) if way == "mp3" else 0
        assert span.end_s - span.start_s == pytest.approx(len(whole) / 48000, abs=(slack + 1e-3) / 48000)
        starts = [float(s) for s in np.arange(0.0, span.end_s - 0.1, 0.5)]
        for order in (starts, starts[::-1]) if span.end_s < 10 else (starts[:3] + starts[-4:],):
            for start in order:
                found = media.waveform(48000, start, start + 0.5).samples
                at = round((start - span.start_s) * 48000)
                assert _is_at(found, whole, max(0, at), slack), start


def _alone(path: Path, by_soundfile: bool) -> np.ndarray:
    if by_soundfile:
        return soundfile.read(path, dtype="float32")[0]  # type: ignore[no-any-return]
    return sound_of(path)[0]


def _is_at(found: np.ndarray, whole: np.ndarray, at: int, slack: int) -> bool:
    places = {at} | ({at - k * 1152 for k in range(slack // 1152 + 1)} if slack else set())
    return any(_close(found, whole[max(0, place) :][: len(found)], 0.9 if slack else 1.0) for place in places)


def _close(found: np.ndarray, expected: np.ndarray, share: float) -> bool:
    """Equal over what both have, an MP3's frame at a joint aside."""
    size = min(len(found), len(expected))
    return size > 0 and float(np.mean(np.abs(found[:size] - expected[:size]) < 1e-4)) >= share


@pytest.mark.parametrize("soundfile_first", [True, False])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("ogg", 1, {}), ("ogg", 2, {})),
        (("ogg", 1, OPUS), ("ogg", 2, OPUS)),
        (("ogg", 1, {}), ("ogg", 1, OPUS)),
        (("flac", 1, {}), ("flac", 1, {"subtype": "PCM_24"})),
        (("flac", 1, {}), ("flac", 2, {"subtype": "PCM_24"})),
    ],
)
def test_streams_of_other_kinds_are_read_too(tmp_path: Path, first: Any, second: Any, soundfile_first: bool) -> None:
    """A decoder that the first stream set up could not read the second."""
    wholes, content = [], b""
    for number, (suffix, channels, options) in enumerate((first, second)):
        file = tmp_path / f"{number}.{suffix}"
        noise = np.random.default_rng(number).normal(0, 0.1, (96000, channels)).astype(np.float32)
        soundfile.write(file, noise, 48000, **options)
        wholes.append(_alone(file, soundfile_first) if channels == 1 else _mean(file, soundfile_first))
        content += file.read_bytes()
    path = tmp_path / f"joined.{first[0]}"
    path.write_bytes(content)
    config = DecodersConfig(audio={"soundfile": soundfile_first})  # type: ignore[arg-type]
    with open_media(Blob(str(path)), "audio", config) as media:
        found = media.waveform(48000, 0.0, 9.0).samples
    whole = np.concatenate(wholes)
    assert len(found) == len(whole)
    assert np.abs(found - whole).max() < 1e-4


def _mean(path: Path, by_soundfile: bool) -> np.ndarray:
    if by_soundfile:
        return soundfile.read(path, dtype="float32", always_2d=True)[0].mean(axis=1)  # type: ignore[no-any-return]
    return sound_of(path)[0]


@pytest.mark.parametrize("suffix", ["ogg", "flac"])
def test_another_rate_is_a_failure_that_says_where(tmp_path: Path, suffix: str) -> None:
    content = b""
    for rate in (48000, 44100):
        soundfile.write(tmp_path / f"a.{suffix}", np.zeros(rate, np.float32), rate)
        content += (tmp_path / f"a.{suffix}").read_bytes()
    (tmp_path / f"joined.{suffix}").write_bytes(content)
    with pytest.raises(SampleError, match="stream 2 of 2: sample rate changes from 48000 to 44100 Hz"):
        open_media(Blob(str(tmp_path / f"joined.{suffix}")), "audio", DecodersConfig())


@pytest.mark.parametrize("way", ["vorbis", "flac"])
def test_damage_in_one_stream_moves_no_other(tmp_path: Path, way: str) -> None:
    suffix, options = WAYS[way]
    first = bytearray(_part(tmp_path / f"a{suffix}", 10.0, 0, **options))
    second = _part(tmp_path / f"b{suffix}", 10.0, 1, **options)
    middle = len(first) // 2
    first[middle : middle + 9000] = bytes(9000)
    path = tmp_path / f"joined{suffix}"
    path.write_bytes(first + second)
    whole = _alone(tmp_path / f"b{suffix}", True)
    with open_media(Blob(str(path)), "audio", DecodersConfig()) as media:
        assert media.info.spans["audio"].end_s == pytest.approx(20.0, abs=1e-3)  # type: ignore[union-attr]
        assert np.abs(media.waveform(48000, 10.0, 12.0).samples - whole[:96000]).max() < 1e-4
        assert np.abs(media.waveform(48000, 18.0, 20.0).samples - whole[-96000:]).max() < 1e-4


@pytest.mark.parametrize("header", [False, True])
@pytest.mark.parametrize("loudness", [(1.0, 0.01, 0.01), (0.01, 1.0, 1.0)])
def test_an_mp3_of_changing_bit_rate_is_read_to_its_end(
    tmp_path: Path, loudness: tuple[float, ...], header: bool
) -> None:
    """Without a header that counts, libsndfile takes the first bit rate for that of all."""
    path = tmp_path / "a.mp3"
    noise = np.random.default_rng(0).normal(0, 0.2, 10 * 44100)
    tone = np.sin(np.arange(10 * 44100) * 0.06)
    wave = np.concatenate([noise if level == 1.0 else level * tone for level in loudness]).astype(np.float32)
    with av.open(str(path), "w", options={"write_xing": str(int(header)), "id3v2_version": "0"}) as out:
        stream = out.add_stream("libmp3lame", rate=44100, layout="mono", options={"compression_level": "5"})
        stream.codec_context.flags |= 2  # constant quality
        stream.codec_context.global_quality = 118 * 2
        frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = 44100, Fraction(1, 44100), 0
        for packet in (*stream.encode(frame), *stream.encode(None)):
            out.mux(packet)
    with open_media(Blob(str(path)), "audio", DecodersConfig()) as media:
        assert media.info.spans["audio"].end_s == pytest.approx(30.0, abs=0.1)  # type: ignore[union-attr]
        for start in (0.0, 14.0, 29.0):
            found, expected = media.waveform(44100, start, start + 0.9).samples, wave[round(start * 44100) :][:39690]
            assert np.std(found) == pytest.approx(np.std(expected), rel=0.7), start


def test_whole_files_are_not_joined(tmp_path: Path, data: Path) -> None:
    for way, (suffix, options) in WAYS.items():
        path = tmp_path / f"{way}{suffix}"
        _part(path, 2.0, 0, **options)
        assert not parts_of(Blob(str(path)))
        assert (after_mp3(Blob(str(path))) or 0) <= 128
    for path in sorted((data / "audio").iterdir()):
        assert not parts_of(Blob(str(path))), path


def test_a_track_of_many_streams_at_once_is_not_joined(tmp_path: Path) -> None:
    path = tmp_path / "two.ogg"
    with opened_for_writing(path) as out:
        streams = [out.add_stream("libopus", rate=48000, layout="mono") for _ in range(2)]
        for stream in streams:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = 48000, Fraction(1, 48000), 0
            out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
    assert not parts_of(Blob(str(path)))


@pytest.mark.parametrize("way", ["vorbis", "flac"])
def test_joints_are_found_wherever_they_fall(tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every place of a chunk, and in a file that is read over the net."""
    path = _cat(tmp_path, way, (0.3, 0.2))
    content = path.read_bytes()
    joint = content.rfind(b"fLaC" if way == "flac" else b"OggS\x00\x02")
    for chunk in range(joint - 12, joint + 3):
        monkeypatch.setattr(module, "_CHUNK", chunk)
        assert [(part.start, part.stop) for part in parts_of(Blob(str(path)))] == [(0, joint), (joint, len(content))]
    fsspec.filesystem("memory").pipe_file(f"/joined/{way}", content)
    assert [part.read() for part in parts_of(Blob(f"memory://joined/{way}"))] == [content[:joint], content[joint:]]


def test_tags_behind_an_mp3_are_no_sound(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    content = _part(path, 1.0, 0)
    path.write_bytes(content + b"APETAGEX" + bytes(5000))
    assert after_mp3(Blob(str(path))) == pytest.approx(5008, abs=200)
    with open_media(Blob(str(path)), "audio", DecodersConfig()) as media:
        assert media.info.format == "mp3"
        assert media.info.spans["audio"].end_s == pytest.approx(1.0, abs=0.06)  # type: ignore[union-attr]


@pytest.mark.parametrize("at", range(236, 256, 3))
def test_a_header_frame_that_breaks_off_counts_nothing(tmp_path: Path, at: int) -> None:
    (tmp_path / "a.mp3").write_bytes((bytes(at) + b"Xing" + b"\xff" * 20)[:256])
    found = after_mp3(Blob(str(tmp_path / "a.mp3")))
    assert found is None or found >= 0
