from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import fsspec
import numpy as np
import pytest
import soundfile

from pipeline.decoders import DecodersConfig, open_media
from pipeline.decoders import joined as module
from pipeline.decoders.joined import after_mp3, is_joined
from pipeline.storage import Blob
from tests.decoders.reference import opened_for_writing, sound_of

WAYS = {
    "mp3": (".mp3", {}),
    "vorbis": (".ogg", {}),
    "opus": (".ogg", {"format": "OGG", "subtype": "OPUS"}),
    "flac": (".flac", {}),
}


def _part(path: Path, seconds: float, seed: int, **options: str) -> bytes:
    noise = np.random.default_rng(seed).normal(0, 0.1, round(seconds * 48000)).astype(np.float32)
    soundfile.write(path, noise, 48000, **options)
    return path.read_bytes()


def _cat(folder: Path, way: str, lengths: tuple[float, ...], same: bool = False) -> Path:
    suffix, options = WAYS[way]
    parts = [_part(folder / f"part{suffix}", s, 0 if same else i, **options) for i, s in enumerate(lengths)]
    path = folder / f"joined{suffix}"
    path.write_bytes(b"".join(parts))
    return path


@pytest.mark.parametrize("soundfile_first", [True, False])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("lengths", [(3.0, 2.0), (2.0, 3.0), (2.0, 2.0), (1.0, 0.5, 25.0, 0.7)])
def test_no_second_of_joined_files_is_lost(
    tmp_path: Path, way: str, lengths: tuple[float, ...], soundfile_first: bool
) -> None:
    """Windows, far jumps among them, are what PyAV decodes one after the other."""
    path = _cat(tmp_path, way, lengths, same=len(set(lengths)) == 1)
    whole, rate, _, longest = sound_of(path)
    assert len(whole) / rate > sum(lengths) - 0.1
    config = DecodersConfig(audio={"soundfile": soundfile_first})  # type: ignore[arg-type]
    with open_media(Blob(str(path)), "audio", config) as media:
        span = media.info.spans["audio"]
        assert span is not None
        assert span.end_s - span.start_s == pytest.approx(len(whole) / rate, abs=longest + 1e-6)
        starts = [float(s) for s in np.arange(0.0, span.end_s, 0.5)]
        for order in (starts, starts[::-1]) if span.end_s < 10 else (starts[:3] + starts[-4:],):
            for start in order:
                found = media.waveform(rate, start, start + 0.5).samples
                at = round((start - span.start_s) * rate)
                # FFmpeg leaves out an MP3's header frame; by the times it is a frame of silence
                slack = 0 if way != "mp3" else 1152 * len(lengths)
                assert _is_at(found, whole, max(0, at), slack), start


def _is_at(found: np.ndarray, whole: np.ndarray, at: int, slack: int) -> bool:
    places = {at} | ({at - k * 1152 for k in range(slack // 1152 + 1)} if slack else set())
    return any(_close(found, whole[max(0, place) :][: len(found)]) for place in places)


def _close(found: np.ndarray, expected: np.ndarray) -> bool:
    """Equal over what both have, a frame at a joint aside."""
    size = min(len(found), len(expected))
    return size > 0 and float(np.mean(np.abs(found[:size] - expected[:size]) < 1e-4)) > 0.9


def test_whole_files_are_not_joined(tmp_path: Path, data: Path) -> None:
    for way, (suffix, options) in WAYS.items():
        path = tmp_path / f"{way}{suffix}"
        _part(path, 2.0, 0, **options)
        assert not is_joined(Blob(str(path)), suffix[1:])
        assert after_mp3(Blob(str(path))) <= 128
    for path in sorted((data / "audio").iterdir()):
        assert not is_joined(Blob(str(path)), path.suffix[1:].replace("oga", "ogg")), path


def test_a_track_of_many_streams_at_once_is_not_joined(tmp_path: Path) -> None:
    path = tmp_path / "two.ogg"
    with opened_for_writing(path) as out:
        streams = [out.add_stream("libopus", rate=48000, layout="mono") for _ in range(2)]
        for stream in streams:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = 48000, Fraction(1, 48000), 0
            out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
    assert not is_joined(Blob(str(path)), "ogg")


@pytest.mark.parametrize("way", ["vorbis", "flac"])
def test_joints_are_found_wherever_they_fall(tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every place of a chunk, and in a file that is read over the net."""
    path = _cat(tmp_path, way, (0.3, 0.2))
    name = WAYS[way][0][1:]
    content = path.read_bytes()
    joint = content.rfind(b"fLaC" if way == "flac" else b"OggS\x00\x02")
    for chunk in range(joint - 12, joint + 3):
        monkeypatch.setattr(module, "_CHUNK", chunk)
        assert is_joined(Blob(str(path)), name), chunk
    fsspec.filesystem("memory").pipe_file(f"/joined/{way}", content)
    assert is_joined(Blob(f"memory://joined/{way}"), name)


def test_tags_behind_an_mp3_are_no_sound(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    content = _part(path, 1.0, 0)
    path.write_bytes(content + b"APETAGEX" + bytes(5000))
    assert after_mp3(Blob(str(path))) == pytest.approx(5008, abs=200)
    with open_media(Blob(str(path)), "audio", DecodersConfig()) as media:
        assert media.info.format == "mp3"
        assert media.info.spans["audio"].end_s == pytest.approx(1.0, abs=0.06)  # type: ignore[union-attr]
