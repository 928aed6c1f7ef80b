from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.decoders import DecodersConfig, open_media
from pipeline.errors import SampleError
from pipeline.media import FpsSampling, UniformSampling
from pipeline.storage import Blob
from tests.decoders.reference import frames_of, rotated_by_matrix, write_numbered
from tests.decoders.video_checks import (
    check_changing_size,
    check_damage,
    check_damaged_start,
    check_limits,
    check_numbered,
    check_real,
    check_scaled,
    reader,
)

WINDOWS = [(2.0, 4.0), (0.0, 2.0), (5.1, 5.3), (1.0, 1.5), (4.0, 6.0), (5.9, 60.0)]
CLIPS = ["exo__sample_android_slow_motion.mp4", "mdn__flower.webm", "torchcodec__sine_stereo_mp2.mpg"]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
@pytest.mark.parametrize("b_frames", ["0", "3"])
def test_the_picture_on_screen_in_any_order_of_windows(tmp_path: Path, suffix: str, b_frames: str) -> None:
    path = tmp_path / f"clip{suffix}"
    ticks = range(150) if suffix == ".avi" else [i * 40 for i in range(150)]
    base = Fraction(1, 25) if suffix == ".avi" else Fraction(1, 1000)
    write_numbered(path, ticks, base, options={"bf": b_frames} if suffix != ".avi" else {"bf": "0"})
    check_numbered("pyav", path, WINDOWS, UniformSampling(5))
    check_numbered("pyav", path, WINDOWS, FpsSampling(10.0))


def test_variable_frame_rate(tmp_path: Path) -> None:
    path = tmp_path / "vfr.mkv"
    gaps = np.random.default_rng(1).integers(5, 300, 60)
    write_numbered(path, np.cumsum(gaps).tolist(), options={"bf": "2"})
    check_numbered("pyav", path, [(0.0, 1.0), (4.0, 6.5), (2.0, 3.0)], UniformSampling(7))


def test_repeated_pictures_keep_their_own_times(tmp_path: Path) -> None:
    path = tmp_path / "slow.mp4"
    write_numbered(path, [0, 1000, 2000])
    backend, span = reader("pyav", path)
    assert (span.start_s, span.end_s) == pytest.approx((0.0, 3.0), abs=1.0)
    assert backend.frames(UniformSampling(4), 0.0, 2.0).times_s.tolist() == [0.0, 0.0, 1.0, 1.0]


def test_rotation_is_the_display_matrix(data: Path) -> None:
    for path in _rotated(data):
        frame = reader("pyav", path)[0].frames(UniformSampling(1), 0.0, 0.01).pixels[0]
        assert np.array_equal(frame, rotated_by_matrix(path)), path.name


@pytest.mark.parametrize("name", CLIPS)
def test_real_clips(data: Path, name: str) -> None:
    check_real("pyav", data / "videos" / name, mean=0.0)


def test_a_start_that_is_not_zero(data: Path) -> None:
    path = data / "bad" / "torchcodec__test_non_zero_start.mp4"
    backend, span = reader("pyav", path)
    assert span.start_s == pytest.approx(0.0, abs=1e-6)
    times = backend.frames(UniformSampling(200), span.start_s, span.end_s).times_s
    assert np.allclose(np.unique(times), [time for time, _, _ in frames_of(path)], atol=1e-6)


def test_a_damaged_packet_costs_its_frame_and_damaged_seconds_their_windows(tmp_path: Path) -> None:
    check_damage("pyav", tmp_path / "clip.mp4")


def test_a_damaged_start_is_not_a_later_picture(tmp_path: Path) -> None:
    check_damaged_start("pyav", tmp_path / "clip.mp4")


def test_a_window_has_so_many_bytes(tmp_path: Path) -> None:
    check_limits("pyav", tmp_path / "clip.mp4")


def test_a_stream_may_change_its_size(tmp_path: Path) -> None:
    check_changing_size("pyav", tmp_path / "clip.ts")


def test_beyond_the_end_there_is_nothing(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_numbered(path, [i * 40 for i in range(50)])
    with pytest.raises(SampleError, match="empty"):
        reader("pyav", path)[0].frames(UniformSampling(2), 100.0, 102.0)


def test_a_damaged_packet_of_a_real_clip_is_not_its_end(data: Path) -> None:
    backend, span = reader("pyav", data / "bad" / "decord__corrupted.mp4")
    assert span.end_s == pytest.approx(5.0)
    assert backend.frames(UniformSampling(2), 0.0, 2.0).times_s.tolist() == pytest.approx([0.5, 1.5])
    assert backend.frames(UniformSampling(2), 4.0, 5.0).times_s.tolist() == pytest.approx([4.2, 4.7])


def _rotated(data: Path) -> list[Path]:
    clips = [data / "videos" / f"decord__video_{turn}.mov" for turn in (0, 90, 180, 270)]
    return [*clips, data / "bad" / "torchcodec__nasa_13013_rotated.mp4"]


@pytest.mark.parametrize(("codec", "name"), [("libx264", "x.h264"), ("mpeg4", "x.m4v"), ("mpeg2video", "x.m2v")])
def test_a_bare_stream_counts_its_frames(tmp_path: Path, codec: str, name: str) -> None:
    path = tmp_path / name
    with av.open(str(path), "w", format={"x.h264": "h264", "x.m4v": "m4v", "x.m2v": "mpeg2video"}[name]) as out:
        stream = out.add_stream(codec, rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt, stream.gop_size = "yuv420p", 10
        for i in range(50):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), 5 + 4 * i, np.uint8))))
        out.mux(stream.encode())
    with open_media(Blob(str(path)), "video", DecodersConfig()) as media:
        span = media.info.spans["video"]
        assert span is not None
        assert (span.start_s, span.end_s) == (0.0, pytest.approx(2.0, abs=0.041))
        for start_s in (0.0, 1.0):
            frames = media.frames(UniformSampling(5), start_s, start_s + 1.0)
            assert frames.times_s == pytest.approx([start_s + at for at in (0.08, 0.28, 0.48, 0.68, 0.88)], abs=0.021)
            shown = frames.pixels[:, 0, 0, 0].astype(float)
            assert shown == pytest.approx(5 + 4 * frames.times_s * 25, abs=4)


@pytest.mark.parametrize("name", ["exo__sample_android_slow_motion.mp4", "decord__video_90.mov", "mdn__flower.webm"])
def test_frames_are_decoded_small_where_that_is_asked(data: Path, name: str) -> None:
    check_scaled("pyav", data / "videos" / name, 128)
