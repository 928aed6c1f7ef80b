"""Decoded media: spans overlap as half-open intervals do, and a repr shows shapes, not tensors."""

from __future__ import annotations

import numpy as np

from pipeline.media import Frames, Image, Span, Waveform


def test_spans_are_half_open() -> None:
    span = Span(1.0, 2.0)
    assert span.overlaps(0, 1.1)
    assert span.overlaps(1.9, 5)
    assert span.overlaps(0, 5)
    assert not span.overlaps(0, 1)
    assert not span.overlaps(2, 3)


def test_reprs_are_short() -> None:
    frames = Frames(np.zeros((2, 4, 6, 3), np.uint8), np.array([0.0, 0.5]))
    assert repr(frames).startswith("Frames(pixels=uint8[2, 4, 6, 3]")
    assert repr(Image(frames.pixels[0])) == "Image(pixels=uint8[4, 6, 3])"
    assert repr(Waveform(np.zeros(8, np.float32), 4, 0.5)) == "Waveform(8 samples at 4 Hz from 0.500 s)"
