"""Decoded media as they pass from decoders to tokenizers, and what a tokenizer may ask a decoder for.

One clock for everything: seconds of presentation time, counted from the start of the container.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Modality = Literal["text", "image", "video", "audio"]
MODALITIES: tuple[Modality, ...] = ("text", "image", "video", "audio")


def at_least_a_tick(seconds: float, tick_s: float) -> bool:
    """Returns whether a difference of two times is more than rounding."""
    return seconds > tick_s * (1 - 1e-6)  # of times in float64


@dataclass(frozen=True)
class Span:
    """Presentation time ``[start_s, end_s)`` that a stream covers."""

    start_s: float
    end_s: float
    tick_s: float = field(default=1e-6, compare=False)
    """Seconds between two times that its clock can express. A shorter difference is rounding."""

    @property
    def tolerance_s(self) -> float:
        """How far a time may be from the true one: half a tick, and what float64 adds."""
        return self.tick_s * (0.5 + 1e-6)

    def overlaps(self, start_s: float, end_s: float) -> bool:
        """Whether it covers at least a tick of ``[start_s, end_s)``."""
        return at_least_a_tick(min(self.end_s, end_s) - max(self.start_s, start_s), self.tick_s)


@dataclass(frozen=True)
class MediaInfo:
    """What a file really holds, by its content.

    ``spans`` has a key for each modality that is there; its value is the time covered, or None for
    an untimed text or a still image.
    """

    format: str
    spans: dict[Modality, Span | None] = field(default_factory=dict)
    words: tuple[Span, ...] = ()
    """Of a timed text, when its words are shown."""
    unsupported: frozenset[Modality] = frozenset()
    """Modalities that are in it, in a coding that nothing here knows."""


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Image:
    pixels: np.ndarray  # [H, W, 3] uint8, upright, sRGB-like

    def __repr__(self) -> str:
        return f"Image(pixels={self.pixels.dtype}{list(self.pixels.shape)})"


@dataclass(frozen=True)
class Frames:
    pixels: np.ndarray  # [T, H, W, 3] uint8, upright
    times_s: np.ndarray  # [T] float64, each frame's own presentation time

    def __repr__(self) -> str:
        return f"Frames(pixels={self.pixels.dtype}{list(self.pixels.shape)}, times_s={self.times_s})"


@dataclass(frozen=True)
class Waveform:
    samples: np.ndarray  # [n] float32, mono, at sample_rate
    sample_rate: int
    start_s: float  # time of samples[0]

    def __repr__(self) -> str:
        return f"Waveform({len(self.samples)} samples at {self.sample_rate} Hz from {self.start_s:.3f} s)"


Media = Text | Image | Frames | Waveform


@dataclass(frozen=True)
class UniformSampling:
    """``frames`` pictures: those shown at the middles of ``frames`` equal slices of the span.

    A span with fewer pictures repeats them; their true times tell.
    """

    frames: int


@dataclass(frozen=True)
class FpsSampling:
    """The pictures shown at the times k / fps (k integer, one grid for all windows) within the span.

    At least one. ``max_frames`` bounds them: beyond it, that many are taken uniformly.
    """

    fps: float
    max_frames: int | None = None


Sampling = UniformSampling | FpsSampling


@dataclass(frozen=True)
class TextRequest:
    pass


@dataclass(frozen=True)
class ImageRequest:
    pass


@dataclass(frozen=True)
class FramesRequest:
    sampling: Sampling


@dataclass(frozen=True)
class WaveformRequest:
    sample_rate: int


Request = TextRequest | ImageRequest | FramesRequest | WaveformRequest
