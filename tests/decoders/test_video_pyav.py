from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from pipeline.core.errors import SampleError
from pipeline.core.media import FpsSampling, Frames, Sampling, UniformSampling
from pipeline.decoders import DecodersConfig, open_media
from pipeline.decoders._shared.container import Container
from pipeline.decoders._shared.decode_plan import DecodePlan
from pipeline.decoders.video_pyav import PyavReader
from pipeline.storage.blob import Blob
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


SWEEP = [(0.0, 2.0), (2.0, 4.0), (4.0, 6.0), (4.5, 4.6), (1.0, 3.0), (8.0, 9.0), (0.0, 100.0)]


def _looked(backend: PyavReader, sampling: Sampling, windows: Sequence[tuple[float, float]]) -> list[Frames | str]:
    done: list[Frames | str] = []
    for window in windows:
        try:
            done.append(backend.frames(sampling, *window))
        except SampleError as error:
            done.append(error.kind)
    return done


def _equal(ours: Sequence[Frames | str], reference: Sequence[Frames | str], what: str) -> None:
    for one, other in zip(ours, reference, strict=True):
        if isinstance(one, str) or isinstance(other, str):
            assert one == other, what
        else:
            assert np.array_equal(one.pixels, other.pixels), what
            assert np.array_equal(one.times_s, other.times_s), what


def _counted(backend: PyavReader) -> list[int]:
    """[packets read, pictures decoded], as they are read from here on."""
    counts, plain = [0, 0], backend.container.decoded

    def decoded(stream: Any, through: Any = iter) -> Iterator[Any]:
        def counting(packets: Iterator[Any]) -> Iterator[Any]:
            for packet in through(packets):
                counts[0] += packet.size > 0
                yield packet

        for got in plain(stream, counting):
            counts[1] += 1
            yield got

    backend.container.decoded = decoded  # type: ignore[method-assign]
    return counts


def _one_by_one(path: Path, sampling: Sampling, windows: Sequence[tuple[float, float]]) -> list[Frames | str]:
    """Every window by a reader of its own that leaves nothing out."""
    done: list[Frames | str] = []
    for window in windows:
        backend, _ = reader("pyav", path)
        assert isinstance(backend, PyavReader)
        backend.skips_pictures = False
        done += _looked(backend, sampling, [window])
        backend.container.close()
    return done


@pytest.mark.parametrize("every", [15, pytest.param(1, marks=pytest.mark.slow)])
def test_windows_of_real_clips_are_what_a_reader_of_their_own_sees(data: Path, every: int) -> None:
    planned, left_out = 0, 0
    for path in sorted((data / "videos").iterdir())[::every]:
        if path.suffix == ".csv" or "video" not in Container(Blob(str(path))).spans():
            continue
        for sampling in (UniformSampling(8), FpsSampling(1.0)):
            backend = reader("pyav", path)[0]
            assert isinstance(backend, PyavReader)
            counts, plans = _counted(backend), backend.skips_pictures
            _equal(_looked(backend, sampling, SWEEP), _one_by_one(path, sampling, SWEEP), path.name)
            backend.container.close()
            if plans:
                packets, pictures = counts  # without a plan, each packet is decoded
                planned, left_out = planned + 1, left_out + packets - pictures
    assert planned > 80 / every / 2
    assert left_out > 2000 / every / 2


def test_h264_in_a_transport_stream_is_decoded_whole(tmp_path: Path) -> None:
    path = tmp_path / "clip.ts"
    write_numbered(path, [i * 40 for i in range(150)], options={"bf": "3"})
    backend, _ = reader("pyav", path)
    assert isinstance(backend, PyavReader)
    assert not backend.skips_pictures
    check_numbered("pyav", path, WINDOWS, UniformSampling(5))


class _Packet:
    """The attributes of a packet that a plan reads."""

    time_base, is_discard, size = Fraction(1, 100), False, 1000

    def __init__(self, pts: int | None, size: int = 1000) -> None:
        self.pts, self.size = pts, size


class _Codec:
    skip_frame = "DEFAULT"


def _skips(packets: Sequence[_Packet], asked: Sequence[float]) -> tuple[list[str], DecodePlan]:
    codec = _Codec()
    plan = DecodePlan(np.array(asked), 0.0, 5e-7, codec)
    return [codec.skip_frame for _ in plan.filter_packets(iter(packets))], plan


def test_a_plan_keeps_what_is_on_screen_and_what_comes_after() -> None:
    # decoded 0 3 1 2 6 4 5, shown in order; asked for at 0.045, which shows 4
    packets = [_Packet(pts) for pts in (0, 3, 1, 2, 6, 4, 5)]
    kept, plan = _skips(packets, [0.045])
    assert kept == ["DEFAULT", "NONREF", "NONREF", "NONREF", "DEFAULT", "DEFAULT", "DEFAULT"]  # 6, 5: after it
    assert plan.matches([0.04])
    assert not plan.matches([0.03])


def test_fields_of_a_picture_in_packets_of_their_own_turn_a_plan_off() -> None:
    packets = [_Packet(0), _Packet(None), *[_Packet(pts) for pts in range(1, 60)], _Packet(None, 0)]
    kept, plan = _skips(packets, [0.5])
    assert set(kept) == {"DEFAULT"}
    assert not plan.matches([0.5])


def test_a_plan_holds_so_many_bytes() -> None:
    taken = 0

    def packets() -> Iterator[_Packet]:
        nonlocal taken
        for pts in range(40):
            taken += 1
            yield _Packet(pts, 10 << 20)

    plan = DecodePlan(np.array([0.1]), 0.0, 5e-7, _Codec())
    next(plan.filter_packets(packets()))
    assert taken == 4


def test_interlaced_pictures_turn_a_plan_off(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_numbered(path, [i * 40 for i in range(100)], options={"bf": "3", "x264-params": "tff=1"})
    backend, _ = reader("pyav", path)
    assert isinstance(backend, PyavReader)
    assert backend.skips_pictures
    _equal(_looked(backend, UniformSampling(4), SWEEP), _one_by_one(path, UniformSampling(4), SWEEP), "")
    assert not backend.skips_pictures


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_windows_that_follow_each_other_are_one_walk(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip{suffix}"
    write_numbered(path, [i * 40 for i in range(250)], options={"bf": "3", "g": "250"})
    backend, _ = reader("pyav", path)
    assert isinstance(backend, PyavReader)
    counts = _counted(backend)
    _looked(backend, UniformSampling(4), [(i * 2.0, i * 2.0 + 2.0) for i in range(5)])
    assert 240 < counts[0] <= 250
    assert counts[1] < 150  # of three B pictures x264 makes others from one
    assert backend.skips_pictures


def test_it_goes_back_and_it_jumps_to_a_key_frame(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_numbered(path, [i * 40 for i in range(750)], options={"bf": "2", "g": "25"})
    backend, _ = reader("pyav", path)
    assert isinstance(backend, PyavReader)
    counts = _counted(backend)
    _looked(backend, UniformSampling(4), [(0.0, 1.0), (28.0, 29.0)])
    assert counts[0] < 150
    check_numbered("pyav", path, [(0.0, 1.0), (28.0, 29.0), (0.5, 1.5), (1.5, 2.0), (1.9, 2.1)], UniformSampling(4))


def test_a_picture_that_is_left_out_by_mistake_is_found_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "clip.mp4"
    write_numbered(path, [i * 40 for i in range(100)], options={"bf": "3"})
    monkeypatch.setattr(DecodePlan, "_is_needed", lambda self, packet: False)
    backend, whole = reader("pyav", path)[0], reader("pyav", path)[0]
    assert isinstance(backend, PyavReader)
    assert isinstance(whole, PyavReader)
    whole.skips_pictures = False
    _equal(_looked(backend, UniformSampling(8), SWEEP), _looked(whole, UniformSampling(8), SWEEP), "")
    assert not backend.skips_pictures


def test_what_was_seen_of_a_long_stream_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    write_numbered(path, [i * 40 for i in range(1500)], options={"bf": "2"})
    backend, _ = reader("pyav", path)
    assert isinstance(backend, PyavReader)
    for start in range(0, 58, 2):
        backend.frames(UniformSampling(2), start, start + 2)
        assert backend.current_pass is not None
        assert backend.current_pass.plan is not None
        assert len(backend.current_pass.plan.stamps) < 150
