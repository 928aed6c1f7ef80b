"""What both video backends owe, checked against a decoding of the whole file in order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.decoders.container import Container
from pipeline.decoders.video_decord import DecordReader
from pipeline.decoders.video_pyav import PyavReader
from pipeline.media import Sampling, Span, UniformSampling
from pipeline.storage import Blob
from tests.decoders.reference import frames_of, number_in, shown

Reader = DecordReader | PyavReader


def reader(kind: str, path: Path) -> tuple[Reader, Span]:
    """A backend on a file, and the span of its video stream."""
    container = Container(Blob(str(path)))
    span = container.spans()["video"]
    if kind == "pyav":
        return PyavReader(container, span), span
    return DecordReader(str(path), container, span), span


def check_numbered(kind: str, path: Path, windows: Sequence[tuple[float, float]], sampling: Sampling) -> None:
    """Numbered frames: the pictures and the times are those of the frames on screen at the middles of the slices."""
    times = [time for time, _, _ in frames_of(path)]
    backend, span = reader(kind, path)
    for start_s, end_s in windows:
        low, high = max(start_s, span.start_s), min(end_s, span.end_s)
        if isinstance(sampling, UniformSampling):
            n = sampling.frames
            asked = [low + (high - low) * (i + 0.5) / n for i in range(n)]
        else:
            ticks = range(round(span.end_s * sampling.fps) + 2)
            asked = [k / sampling.fps for k in ticks if low - 1e-9 <= k / sampling.fps < high - 1e-9]
        expected = [shown(times, instant) for instant in asked]
        frames = backend.frames(sampling, start_s, end_s)
        assert frames.pixels.dtype == np.uint8
        assert [number_in(picture) for picture in frames.pixels] == expected, (path.name, start_s)
        assert np.allclose(frames.times_s, [times[i] for i in expected], rtol=0, atol=1e-6)
        assert frames.times_s.dtype == np.float64


def check_real(kind: str, path: Path, mean: float, windows: int = 3) -> Reader:
    """A real clip: true times, and pictures that differ from PyAV's of the same time by at most ``mean``."""
    truth = frames_of(path, pixels=True)
    times = [time for time, _, _ in truth]
    backend, span = reader(kind, path)
    cuts = np.linspace(span.start_s, span.end_s, windows + 1)
    for i in np.random.default_rng(0).permutation(windows):  # any order
        low, high = float(cuts[i]), float(cuts[i + 1])
        frames = backend.frames(UniformSampling(3), low, high)
        expected = [shown(times, low + (high - low) * (k + 0.5) / 3) for k in range(3)]
        assert np.allclose(frames.times_s, [times[k] for k in expected], rtol=0, atol=1e-6), path.name
        for picture, k in zip(frames.pixels, expected, strict=True):
            wanted = truth[k][2]
            if wanted is not None:  # a rotated clip has its own test
                assert picture.shape == wanted.shape
                assert np.abs(picture.astype(np.int16) - wanted).mean() <= mean, (path.name, times[k])
    return backend
