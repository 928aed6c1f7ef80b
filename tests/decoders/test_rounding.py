"""Containers round times to ticks of their clocks: no picture is lost for it, and none comes too early or too late."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from pipeline.core.media import FpsSampling, Span
from pipeline.decoders import DecodersConfig, open_media, video_decord, video_pyav
from pipeline.storage.blob import Blob
from tests.decoders.reference import number_in, opened, write_numbered
from tests.decoders.video_checks import BACKENDS

CONFIGS = {"decord": video_decord.Config(), "pyav": video_pyav.Config()}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_first_picture_whose_time_the_container_rounds(tmp_path: Path, backend: str) -> None:
    """FFmpeg says that it starts at 0.066733 s, and its first picture is at 2002/30000 s, a third of a microsecond
    later. No picture is lost for that, and none is given a time before the row's."""
    path = tmp_path / "late.mp4"
    write_numbered(path, [2002 + 1001 * i for i in range(150)], Fraction(1, 30000))
    with opened(path) as container:
        assert container.start_time == 66733
    with open_media(Blob(str(path)), None, DecodersConfig(video=CONFIGS[backend])) as media:
        assert media.info.spans == {"video": Span(0.0, pytest.approx(150 * 1001 / 30000, abs=1e-4))}
        frames = media.frames(FpsSampling(10), 0.0, 5.0)
    expected = [int(Fraction(k, 10) * 30000 / 1001) for k in range(50)]
    assert [number_in(one) for one in frames.pixels] == expected
    assert np.allclose(frames.times_s, [n * 1001 / 30000 for n in expected], atol=1e-9)
    assert frames.times_s[0] == 0.0


@pytest.mark.parametrize("backend", BACKENDS)
def test_times_that_matroska_rounds_to_milliseconds(tmp_path: Path, backend: str) -> None:
    """A picture due at 66.67 ms is stored at 67 ms: it is the one that is shown at 2/30 s."""
    path = tmp_path / "clip.mkv"
    write_numbered(path, [round(i * 1000 / 30) for i in range(120)])
    with open_media(Blob(str(path)), None, DecodersConfig(video=CONFIGS[backend])) as media:
        numbers, times = [], []
        for start in range(4):
            frames = media.frames(FpsSampling(30), start, start + 1)
            numbers += [number_in(one) for one in frames.pixels]
            times += frames.times_s.tolist()
            assert frames.times_s[0] >= start
    assert numbers == list(range(120))
    assert np.allclose(times, np.arange(120) / 30, atol=5.1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_clock_that_ticks_once_a_picture_rounds_nothing(tmp_path: Path, backend: str) -> None:
    """AVI's: half a tick is half a picture there, and the picture of 0.12 s is not yet shown at 0.1 s."""
    path = tmp_path / "clip.avi"
    write_numbered(path, list(range(50)), Fraction(1, 25), codec="mpeg4")
    with open_media(Blob(str(path)), None, DecodersConfig(video=CONFIGS[backend])) as media:
        frames = media.frames(FpsSampling(10), 0.0, 2.0)
    assert [number_in(one) for one in frames.pixels] == [int(2.5 * k) for k in range(20)]
