"""An open file decodes the modalities that it holds, on one clock, and refuses the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.core.errors import SampleError
from pipeline.core.media import FpsSampling, Modality, UniformSampling
from pipeline.decoders import DecodersConfig, OpenMedia, open_media
from pipeline.storage.blob import Blob
from tests.decoders.reference import frames_of, sound_of, write_numbered
from tests.decoders.video_checks import BACKENDS

CONFIG = DecodersConfig()


def _open(path: Path, hint: Modality | None = None, config: DecodersConfig = CONFIG) -> OpenMedia:
    return open_media(Blob(str(path)), hint, config)


def test_what_a_file_does_not_hold_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.ones(100, np.float32), 100)
    with _open(tmp_path / "a.wav") as media:
        for ask in (media.image, lambda: media.text(None, None), lambda: media.frames(UniformSampling(1), 0.0, 1.0)):
            with pytest.raises(SampleError, match="holds no"):
                ask()  # type: ignore[operator]
    write_numbered(tmp_path / "a.mp4", [0, 40, 80])
    with _open(tmp_path / "a.mp4") as media, pytest.raises(SampleError, match="holds no audio stream"):
        media.waveform(16000, 0.0, 1.0)


@pytest.mark.parametrize("kind", BACKENDS)
def test_pictures_and_sound_of_one_clip_share_a_clock(data: Path, kind: str) -> None:
    config = DecodersConfig(video={"kind": kind})  # type: ignore[arg-type]
    path = data / "videos" / "mdn__flower.mp4"
    mono, rate, _, _ = sound_of(path)
    times = [time for time, _, _ in frames_of(path)]
    with _open(path, "video", config) as media:
        for start in (2.0, 0.0, 4.0):  # asked for in turn, they do not disturb each other
            sound = media.waveform(rate, start, start + 1.0)
            frames = media.frames(FpsSampling(10.0), start, start + 1.0)
            assert np.allclose(sound.samples, mono[round(start * rate) :][:rate], atol=1e-6)
            assert sound.start_s == pytest.approx(start)
            assert set(np.round(frames.times_s, 6)) <= set(np.round(times, 6))
            assert frames.times_s[0] <= start + 1e-6 < frames.times_s[0] + 0.05
