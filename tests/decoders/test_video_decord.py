from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import decord
import numpy as np
import pytest

from pipeline.core.errors import SampleError
from pipeline.core.media import FpsSampling, UniformSampling
from pipeline.decoders import DecodersConfig, open_media, video_decord
from pipeline.decoders.video_decord import DecordReader
from pipeline.storage.blob import Blob
from tests.decoders.reference import number_in, rotated_by_matrix, write_numbered
from tests.decoders.video_checks import (
    NEEDS_DECORD,
    check_changing_size,
    check_damage,
    check_damaged_start,
    check_limits,
    check_numbered,
    check_real,
    check_scaled,
    reader,
)

pytestmark = NEEDS_DECORD
WINDOWS = [(2.0, 4.0), (0.0, 2.0), (5.1, 5.3), (1.0, 1.5), (4.0, 6.0), (5.9, 60.0)]
PIXELS = 5.0
"""Mean difference of 8-bit values: decord's FFmpeg converts 10-bit and odd sizes with other filters."""


def _decodes_itself(backend: object) -> bool:
    assert isinstance(backend, DecordReader)
    return backend.times_s is not None and len(backend.times_s) > 0


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
@pytest.mark.parametrize("b_frames", ["0", "3"])
def test_the_picture_on_screen_in_any_order_of_windows(tmp_path: Path, suffix: str, b_frames: str) -> None:
    path = tmp_path / f"clip{suffix}"
    ticks = range(150) if suffix == ".avi" else [i * 40 for i in range(150)]
    base = Fraction(1, 25) if suffix == ".avi" else Fraction(1, 1000)
    write_numbered(path, ticks, base, options={"bf": b_frames} if suffix != ".avi" else {"bf": "0"})
    check_numbered("decord", path, WINDOWS, UniformSampling(5))
    check_numbered("decord", path, WINDOWS, FpsSampling(10.0))


def test_variable_frame_rate(tmp_path: Path) -> None:
    path = tmp_path / "vfr.mkv"
    gaps = np.random.default_rng(1).integers(5, 300, 60)
    write_numbered(path, np.cumsum(gaps).tolist(), options={"bf": "2"})
    check_numbered("decord", path, [(0.0, 1.0), (4.0, 6.5), (2.0, 3.0)], UniformSampling(7))


def test_open_groups_of_pictures_go_to_the_second_decoder(tmp_path: Path) -> None:
    """decord counts from the key frame it seeks to, and is off by the pictures shown before it."""
    path = tmp_path / "open.mp4"
    write_numbered(path, [i * 40 for i in range(150)], options={"bf": "3", "x264-params": "open-gop=1:keyint=12"})
    check_numbered("decord", path, WINDOWS, UniformSampling(5))


def test_rotation_is_the_display_matrix(data: Path) -> None:
    clips = [data / "videos" / f"decord__video_{turn}.mov" for turn in (0, 90, 180, 270)]
    for path in [*clips, data / "bad" / "torchcodec__nasa_13013_rotated.mp4"]:
        backend, _ = reader("decord", path)
        frame = backend.frames(UniformSampling(1), 0.0, 0.01).pixels[0]
        wanted = rotated_by_matrix(path)
        assert frame.shape == wanted.shape
        assert np.abs(frame.astype(int) - wanted).mean() < 2.0, path.name
        assert _decodes_itself(backend)


@pytest.mark.parametrize(
    ("name", "itself"),
    [
        ("exo__sample_android_slow_motion.mp4", True),  # variable frame rate
        ("mdn__flower.webm", True),
        ("torchcodec__h264_10bits.mp4", True),
        ("torchcodec__testsrc2_odd_height_and_width_mpeg2.mp4", True),
        ("exo__sample.avi", False),  # it may seek to the wrong picture
        ("torchcodec__sine_stereo_mp2.mpg", False),  # it seeks to the wrong picture
        ("torchcodec__h265_video.mp4", False),  # open groups of pictures
        ("torchcodec__nasa_13013.mp4", False),  # two video streams: it takes the other one
        ("torchcodec__testsrc2_av1_10bit.mp4", False),  # no AV1 in it
        ("exo__dolbyVision-hdr.MOV", False),  # an edit list discards a packet
    ],
)
def test_real_clips_by_decord_or_where_it_errs_by_pyav(data: Path, name: str, itself: bool) -> None:
    assert _decodes_itself(check_real("decord", data / "videos" / name, PIXELS if itself else 0.0)) is itself


@pytest.mark.slow
def test_all_real_clips(data: Path) -> None:
    clips = [p for p in sorted((data / "videos").iterdir()) if p.suffix != ".csv"]
    clips = [p for p in clips if p.stat().st_size < 4_000_000]
    assert len(clips) > 60
    for path in clips:
        check_real("decord", path, PIXELS)


def test_a_damaged_packet_costs_its_frame_and_damaged_seconds_their_windows(tmp_path: Path) -> None:
    check_damage("decord", tmp_path / "clip.mp4")


def test_a_damaged_start_is_not_a_later_picture(tmp_path: Path) -> None:
    check_damaged_start("decord", tmp_path / "clip.mp4")


def test_a_window_has_so_many_bytes(tmp_path: Path) -> None:
    check_limits("decord", tmp_path / "clip.mp4")


def test_a_stream_may_change_its_size(tmp_path: Path) -> None:
    check_changing_size("decord", tmp_path / "clip.ts")


def test_beyond_the_end_there_is_nothing(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_numbered(path, [i * 40 for i in range(50)])
    backend, _ = reader("decord", path)
    with pytest.raises(SampleError, match="empty"):
        backend.frames(UniformSampling(2), 100.0, 102.0)


def test_it_prints_nothing(data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("decord__corrupted.mp4", "dv_half_mdat.mp4", "dv_trunc.mkv"):
        reader("decord", data / "bad" / name)[0].frames(UniformSampling(2), 0.0, 1.0)
    assert capfd.readouterr() == ("", "")


def test_where_decord_stays_at_one_frame_the_second_decoder_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "clip.mp4"
    write_numbered(path, [i * 40 for i in range(50)])
    backend, _ = reader("decord", path)
    backend.frames(UniformSampling(2), 0.0, 1.0)
    assert isinstance(backend, DecordReader)
    stuck = backend.reader[10]
    monkeypatch.setattr(backend, "reader", dict.fromkeys(range(50), stuck))
    frames = backend.frames(UniformSampling(2), 0.0, 2.0)
    assert [number_in(picture) for picture in frames.pixels] == [12, 37]


@pytest.mark.parametrize("name", ["exo__sample_android_slow_motion.mp4", "decord__video_90.mov", "mdn__flower.webm"])
def test_frames_are_decoded_small_where_that_is_asked(data: Path, name: str) -> None:
    check_scaled("decord", data / "videos" / name, 128)


def _shades(path: Path, shades: list[int], **options: str) -> None:
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt, stream.options = "yuv420p", {"bf": "0"}
        for shade in shades:
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), shade, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.slow
def test_a_playlist_that_is_an_mp4_too_shows_no_other_video(tmp_path: Path) -> None:
    """Its first bytes are a playlist for decord's FFmpeg, and for others the header of a box to pass over."""
    dark, bright = list(range(20, 60, 2)), list(range(240, 200, -2))
    victim, cover, path = tmp_path / "victim.ts", tmp_path / "cover.mp4", tmp_path / "poly.mp4"
    _shades(victim, bright)
    _shades(cover, dark, movflags="frag_keyframe+empty_moov+default_base_moof")
    words = f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{victim}\n#EXT-X-ENDLIST\n".encode()
    with path.open("wb") as file:
        file.write(words)
        file.seek(int.from_bytes(words[:4], "big"))  # the size of the box that begins with "#EXTM3U"; a sparse file
        file.write(cover.read_bytes())
    followed = decord.VideoReader(str(path), num_threads=1)
    assert (len(followed), followed[0].asnumpy().mean() > 200) == (20, True)  # decord by itself
    del followed
    config = DecodersConfig(video=video_decord.Config())
    with pytest.raises(SampleError, match="no known media: FFmpeg guesses mov"):
        open_media(Blob(str(path)), "video", config)


def test_decord_sees_a_file_by_its_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its name leads to may be another file by then."""
    path = tmp_path / "a.mp4"
    _shades(path, list(range(20, 60, 2)))
    seen = []
    real = decord.VideoReader
    monkeypatch.setattr(decord, "VideoReader", lambda uri, **more: (seen.append(uri), real(uri, **more))[1])
    with open_media(Blob(str(path)), "video", DecodersConfig(video=video_decord.Config())) as media:
        media.frames(UniformSampling(4), 0.0, 0.8)
    assert len(seen) == 1
    assert seen[0].startswith("/proc/self/fd/")
