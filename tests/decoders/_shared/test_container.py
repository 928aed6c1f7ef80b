from __future__ import annotations

import gc
from fractions import Fraction
from pathlib import Path

import av
import fsspec
import numpy as np
import pytest
import soundfile

from pipeline.core.errors import SampleError
from pipeline.core.media import FpsSampling
from pipeline.decoders import DecodersConfig, open_media, video_decord, video_pyav
from pipeline.decoders._shared import rotation
from pipeline.decoders._shared.container import Container
from pipeline.decoders._shared.demuxer import decoding
from pipeline.decoders._shared.rotation import upright
from pipeline.storage.blob import Blob
from tests.decoders.reference import (
    frames_of,
    number_in,
    opened,
    rotated_by_matrix,
    sound_of,
    write_numbered,
)

LYING = [
    "no_duration.webm",
    "dv_trunc.mkv",
    "dv_trunc_noidx.avi",
    "torchcodec__discard_first_keyframe.mp4",
    "torchcodec__test_non_zero_start.mp4",
    "video_with_failing_audio.mp4",
]
QUICK = [
    "mdn__flower.mp4",
    "mdn__flower.webm",
    "torchcodec__sine_stereo_mp2.mpg",
    "exo__sample.avi",
    "intel__car-detection.mp4",
]


def _spans(path: Path) -> dict:
    container = Container(Blob(str(path)))
    try:
        return container.spans()
    finally:
        container.close()


def _check_spans(path: Path, pad_s: float = 0.0) -> None:
    """Each span begins with the first thing decoded and ends with the last, within a frame (``pad_s``: gaps)."""
    for modality, span in _spans(path).items():
        if modality == "video":
            frames = frames_of(path)
            first, last, shown_s = frames[0][0], frames[-1][0], frames[-1][1]
            assert span.start_s == pytest.approx(first, abs=1e-6), path.name
            assert span.end_s == pytest.approx(last + shown_s, abs=max(shown_s, 1e-3)), path.name
        else:
            mono, rate, first, longest = sound_of(path)
            assert span.start_s == pytest.approx(max(0.0, first), abs=1e-6), path.name
            assert span.end_s - span.start_s == pytest.approx(len(mono) / rate + pad_s, abs=longest + 1e-6), path.name


@pytest.mark.parametrize("name", LYING)
def test_spans_where_headers_lie_or_say_nothing(data: Path, name: str) -> None:
    _check_spans(data / "bad" / name)


@pytest.mark.parametrize("name", QUICK)
def test_spans_of_real_files(data: Path, name: str) -> None:
    _check_spans(data / "videos" / name)


@pytest.mark.slow
def test_spans_of_all_real_files(data: Path) -> None:
    # these two have a jump in the sound's time stamps, which is covered by silence
    gaps = {"mdn__flower-fragmented.mp4": 0.0667, "moviepy__fire2.mp4": 0.1552}
    clips = [p for p in sorted((data / "videos").iterdir()) if p.suffix != ".csv"]
    sounds = [p for p in sorted((data / "audio").iterdir()) if p.suffix != ".csv"]
    assert len(clips) + len(sounds) > 500
    for path in [*clips, *sounds]:
        _check_spans(path, gaps.get(path.name, 0.0))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_the_tail_alone_says_the_end_of_a_long_file(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"long{suffix}"
    write_numbered(path, [i * 100 for i in range(1200)])
    container = Container(Blob(str(path)))
    asked: list[float | None] = []
    packets = container._packets
    monkeypatch.setattr(container, "_packets", lambda from_s: (asked.append(from_s), packets(from_s))[1])
    span = container.spans()["video"]
    assert (span.start_s, span.end_s) == pytest.approx((0.0, 120.0), abs=0.1)
    assert asked == [pytest.approx(115.0, abs=0.2)]


def test_the_clock_begins_with_the_container(tmp_path: Path) -> None:
    path = tmp_path / "late.mkv"
    write_numbered(path, [5000 + i * 40 for i in range(50)], Fraction(1, 1000))
    with opened(path) as raw:
        assert raw.start_time == 5_000_000
    assert _spans(path)["video"].start_s == pytest.approx(0.0)
    assert _spans(path)["video"].end_s == pytest.approx(2.0, abs=0.05)


def test_rewinding_finds_the_key_frame_before_and_the_start(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_numbered(path, [i * 40 for i in range(100)], gop=10)
    container = Container(Blob(str(path)))
    for to_s, number in ((2.05, 50), (None, 0), (3.99, 90), (0.0, 0)):
        container.rewind(to_s)
        frame = next(container.av.decode(container.video))
        assert number_in(frame.to_ndarray(format="rgb24")) == number
    container.close()


def test_remote_files_are_read_by_ranges(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_numbered(path, [i * 40 for i in range(100)])
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/clips/a.mp4", path.read_bytes())
    container = Container(Blob("memory://clips/a.mp4"))
    assert container.spans() == _spans(path)
    container.close()


def test_what_an_encoder_added_is_no_sound(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    soundfile.write(path, np.sin(np.arange(50_000) / 9) / 2, 44100)
    mono, rate, _, _ = sound_of(path)
    assert len(mono) == 50_000
    span = _spans(path)["audio"]
    assert span.end_s - span.start_s == pytest.approx(50_000 / rate, abs=1 / rate)


def test_cover_art_is_no_video(data: Path) -> None:
    for name in ("moviepy__with-attached-pic.mp3", "tinytag__wav_with_image.wav"):
        assert set(_spans(data / "bad" / name)) == {"audio"}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("dv_moov_only.mp4", "empty"),
        ("dv_no_moov.mp4", "corrupt"),
        ("dv_zero.mp4", "empty"),
        ("dv_head1k.webm", "corrupt"),
        ("tinytag__mpeg4_xa9des.m4a", "unsupported"),
        ("tinytag__iso8859_with_image.m4a", "empty"),
        ("dv_html_named.mp4", "corrupt"),
    ],
)
def test_what_cannot_be_read_has_a_reason(data: Path, name: str, kind: str) -> None:
    with pytest.raises(SampleError) as caught:
        _spans(data / "bad" / name)
    assert caught.value.kind == kind
    assert caught.value.message


def test_upright_follows_the_display_matrix(data: Path) -> None:
    for turn in (0, 90, 180, 270):
        path = data / "videos" / f"decord__video_{turn}.mov"
        with opened(path) as raw:
            assert np.array_equal(upright(next(raw.decode(video=0))), rotated_by_matrix(path)), turn


def test_errors_of_memory_and_of_samples_keep_their_kind() -> None:
    with pytest.raises(SampleError) as caught, decoding():
        raise MemoryError
    assert caught.value.kind == "memory"
    with pytest.raises(SampleError) as caught, decoding():
        raise SampleError("limit", "x")
    assert caught.value.kind == "limit"


@pytest.mark.slow
def test_frames_that_were_shown_are_freed_though_nothing_collects(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyAV's frame and its side data hold each other; Python's collector comes every few hundred of them."""
    gc.collect()
    gc.disable()
    try:
        alive = 0
        with av.open(str(data / "videos" / "mdn__flower.mp4")) as source:
            for number, frame in enumerate(source.decode(video=0)):
                monkeypatch.setattr(rotation, "_MAX_UNCOLLECTED_BYTES", 10 * 3 * frame.width * frame.height)
                upright(frame)
                if number % 10 == 9:
                    alive = max(alive, sum(isinstance(one, av.VideoFrame) for one in gc.get_objects()))
                if number == 79:
                    break
        assert number > 40
        assert alive <= 15
    finally:
        gc.enable()


def _tones(path: Path, tracks: list[tuple[int, str]]) -> None:
    """Sound tracks, each a tone (Hz) with a flag."""
    with av.open(str(path), "w") as out:
        streams = []
        for _, flag in tracks:
            stream = out.add_stream("flac", rate=16000, layout="mono")
            stream.disposition = getattr(av.stream.Disposition, flag)
            streams.append(stream)
        for stream, (hertz, _) in zip(streams, tracks, strict=True):
            tone = (8000 * np.sin(2 * np.pi * hertz * np.arange(32000) / 16000)).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, 0, Fraction(1, 16000)
            for packet in (*stream.encode(frame), *stream.encode(None)):
                out.mux(packet)


@pytest.mark.parametrize(
    ("tracks", "played"),
    [
        ([(200, "comment"), (800, "default")], 800),
        ([(200, "default"), (800, "default")], 200),
        ([(200, "visual_impaired"), (800, "dub")], 800),
    ],
)
def test_the_sound_track_that_ffmpeg_plays(tmp_path: Path, tracks: list[tuple[int, str]], played: int) -> None:
    path = tmp_path / "a.mkv"
    _tones(path, tracks)
    with opened(path) as reference:
        expected = reference.streams.best("audio").index
    container = Container(Blob(str(path)))
    try:
        assert container.audio.index == expected
    finally:
        container.close()
    with open_media(Blob(str(path)), None, DecodersConfig()) as media:
        samples = media.waveform(16000, 0.0, 1.0).samples
    assert int(np.abs(np.fft.rfft(samples)).argmax()) == played


def test_the_picture_track_that_ffmpeg_plays(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as out:
        streams = []
        for flag in ("captions", "default"):
            stream = out.add_stream("libx264", rate=10)
            stream.width = stream.height = 64
            stream.pix_fmt = "yuv420p"
            stream.disposition = getattr(av.stream.Disposition, flag)
            streams.append(stream)
        for stream, grey in zip(streams, (20, 200), strict=True):
            for i in range(10):
                frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), grey, np.uint8), format="rgb24")
                frame.pts, frame.time_base = i, Fraction(1, 10)
                for packet in stream.encode(frame):
                    out.mux(packet)
            for packet in stream.encode(None):
                out.mux(packet)
    for video in (video_pyav.Config(), video_decord.Config()):
        with open_media(Blob(str(path)), None, DecodersConfig(video=video)) as media:
            assert media.frames(FpsSampling(5), 0.0, 1.0).pixels.mean() == pytest.approx(200, abs=8)
