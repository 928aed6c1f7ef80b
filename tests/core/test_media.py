"""Spans overlap as half-open intervals; the repr of media has their shapes, not their values."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.media import (
    MODALITIES,
    FpsSampling,
    Frames,
    FramesRequest,
    Image,
    MediaInfo,
    Span,
    UniformSampling,
    Waveform,
)

TENTHS = st.integers(0, 12)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [(0, 1, False), (0, 2, True), (1, 3, True), (1.5, 1.6, True), (3, 4, False), (2.9, 4, True), (4, 5, False)],
)
def test_overlap_by_hand(start: float, end: float, expected: bool) -> None:
    """[1, 3) overlaps neither a span that ends at 1 nor one that begins at 3."""
    assert Span(1.0, 3.0).overlaps(start, end) is expected


@given(TENTHS, TENTHS, TENTHS, TENTHS)
def test_overlap_is_a_common_instant(a: int, b: int, c: int, d: int) -> None:
    (a, b), (c, d) = sorted((a, b)), sorted((c, d))
    if a == b or c == d:
        return
    assert Span(a, b).overlaps(c, d) is bool(set(range(a, b)) & set(range(c, d)))


def test_what_is_printed_is_short() -> None:
    pixels = np.zeros((480, 640, 3), np.uint8)
    assert repr(Image(pixels)) == "Image(pixels=uint8[480, 640, 3])"
    frames = Frames(pixels[None].repeat(2, 0), np.array([0.0, 0.5]))
    assert repr(frames) == "Frames(pixels=uint8[2, 480, 640, 3], times_s=[0.  0.5])"
    assert repr(Waveform(np.zeros(8000, np.float32), 16000, 1.25)) == "Waveform(8000 samples at 16000 Hz from 1.250 s)"


def test_requests_and_infos_cross_processes() -> None:
    for value in (
        MediaInfo("mp4", {"video": Span(0.0, 2.5), "audio": None}),
        FramesRequest(FpsSampling(2.0, 64)),
        FramesRequest(UniformSampling(8)),
    ):
        assert pickle.loads(pickle.dumps(value)) == value
    assert FramesRequest(UniformSampling(8)) in {FramesRequest(UniformSampling(8))}
    assert MODALITIES == ("text", "image", "video", "audio")
