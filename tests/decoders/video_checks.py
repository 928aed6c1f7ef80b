"""What both video backends owe, checked against a decoding of the whole file in order."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from pipeline.core.errors import SampleError
from pipeline.core.media import Sampling, Span, UniformSampling
from pipeline.decoders import video_decord, video_pyav
from pipeline.decoders._shared.container import Container
from pipeline.decoders.video_decord import DecordReader
from pipeline.decoders.video_pyav import PyavReader
from pipeline.storage.blob import Blob
from tests.decoders.reference import damage, frames_of, number_in, shown, write_changing, write_numbered

NEEDS_DECORD = pytest.mark.skipif(find_spec("decord") is None, reason="decord has wheels for x86-64 only")
BACKENDS = [pytest.param("decord", marks=NEEDS_DECORD), "pyav"]
Reader = DecordReader | PyavReader


def reader(kind: str, path: Path, **limits: int) -> tuple[Reader, Span]:
    """A backend on a file, and the span of its video stream."""
    container = Container(Blob(str(path)))
    span = container.spans()["video"]
    if kind == "pyav":
        return PyavReader(container, span, video_pyav.Config(**limits)), span
    return DecordReader(str(path), container, span, video_decord.Config(**limits)), span


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
        expected = [shown(times, instant, span.tolerance_s) for instant in asked]
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
        expected = [shown(times, low + (high - low) * (k + 0.5) / 3, span.tolerance_s) for k in range(3)]
        assert np.allclose(frames.times_s, [times[k] for k in expected], rtol=0, atol=1e-6), path.name
        for picture, k in zip(frames.pixels, expected, strict=True):
            wanted = truth[k][2]
            if wanted is not None:  # a rotated clip has its own test
                assert picture.shape == wanted.shape
                assert np.abs(picture.astype(np.int16) - wanted).mean() <= mean, (path.name, times[k])
    return backend


def check_damage(kind: str, path: Path) -> None:
    """Ten numbered seconds with a damaged packet, then with two damaged seconds."""
    write_numbered(path, [i * 40 for i in range(250)], options={"bf": "0"}, gop=25)
    damage(path, 73)
    frames = reader(kind, path)[0].frames(UniformSampling(8), 0.0, 10.0)
    assert frames.times_s.tolist() == pytest.approx([0.6, 1.84, 3.12, 4.36, 5.6, 6.84, 8.08, 9.36])
    assert [number_in(picture) for picture in frames.pixels] == [15, 46, 78, 109, 140, 171, 202, 234]
    damage(path, *range(100, 150))
    backend, _ = reader(kind, path)
    assert [number_in(p) for p in backend.frames(UniformSampling(2), 2.0, 4.0).pixels] == [62, 87]
    for lost in ((4.0, 6.0), (5.0, 6.0), (3.0, 6.0)):
        with pytest.raises(SampleError, match="Invalid data") as caught:
            backend.frames(UniformSampling(8), *lost)
        assert caught.value.kind == "corrupt"
    assert [number_in(p) for p in backend.frames(UniformSampling(2), 6.0, 8.0).pixels] == [162, 187]


def check_damaged_start(kind: str, path: Path) -> None:
    """A later picture does not replace a start that cannot be decoded."""
    write_numbered(path, [i * 40 for i in range(100)], options={"bf": "0"}, gop=25)
    damage(path, *range(50))
    backend, _ = reader(kind, path)
    with pytest.raises(SampleError, match="Invalid data"):
        backend.frames(UniformSampling(4), 0.0, 1.0)
    assert [number_in(p) for p in backend.frames(UniformSampling(2), 2.0, 4.0).pixels] == [62, 87]


def check_limits(kind: str, path: Path) -> None:
    """Memory is bounded by the frames of a window together."""
    write_numbered(path, [i * 40 for i in range(50)])
    backend, _ = reader(kind, path, max_window_bytes=4 * 64 * 64 * 3)
    assert len(backend.frames(UniformSampling(4), 0.0, 2.0).pixels) == 4
    with pytest.raises(SampleError, match="max_window_bytes") as caught:
        backend.frames(UniformSampling(5), 0.0, 2.0)
    assert caught.value.kind == "limit"


def check_changing_size(kind: str, path: Path) -> None:
    """Pictures have the size of the window's first; a frame over ``max_pixels`` fails wherever it comes."""
    write_changing(path, [(160, 120)] * 50 + [(320, 240)] * 50)
    backend, _ = reader(kind, path)
    for window, shape in (((1.0, 3.0), (120, 160)), ((2.5, 3.5), (240, 320))):
        frames = backend.frames(UniformSampling(4), *window)
        assert frames.pixels.shape == (4, *shape, 3)
        expected = [60 if time < 2.0 - 1e-6 else 120 for time in frames.times_s]
        assert frames.pixels.mean(axis=(1, 2, 3)) == pytest.approx(expected, abs=3)
    backend, _ = reader(kind, path, max_pixels=160 * 120)
    assert backend.frames(UniformSampling(4), 0.0, 1.5).pixels.shape == (4, 120, 160, 3)
    with pytest.raises(SampleError, match="320x240 pixels, over max_pixels 19200") as caught:
        backend.frames(UniformSampling(4), 1.0, 3.0)
    assert caught.value.kind == "limit"


def check_scaled(kind: str, path: Path, edge: int) -> None:
    """Frames decoded small: the same times, the shape kept, and the colours of the large ones scaled down by Pillow."""
    import PIL.Image

    large, span = reader(kind, path)
    small, _ = reader(kind, path, shorter_edge=edge)
    window = (UniformSampling(4), span.start_s, span.end_s)
    whole, scaled = large.frames(*window), small.frames(*window)
    assert scaled.times_s.tolist() == whole.times_s.tolist()
    height, width = whole.pixels.shape[1:3]
    assert min(scaled.pixels.shape[1:3]) == edge
    assert scaled.pixels.shape[1] / scaled.pixels.shape[2] == pytest.approx(height / width, rel=2 / edge)
    for ours, theirs in zip(scaled.pixels, whole.pixels, strict=True):
        size = ours.shape[1::-1]
        expected = np.asarray(PIL.Image.fromarray(theirs).resize(size, PIL.Image.Resampling.BICUBIC), np.float32)
        assert np.abs(ours - expected).mean() < 6
    never_up, _ = reader(kind, path, shorter_edge=10_000)
    assert np.array_equal(never_up.frames(*window).pixels, whole.pixels)
