"""Decoded media that decoders pass to tokenizers, and the requests of tokenizers to decoders.

All times are seconds of presentation time, counted from the start of the container.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Modality = Literal["text", "image", "video", "audio"]
MODALITIES: tuple[Modality, ...] = ("text", "image", "video", "audio")


def at_least_a_tick(seconds: float, tick_s: float) -> bool:
    """Returns whether a difference of two times is at least a tick, apart from the rounding of float64.

    Args:
        seconds: the difference.
        tick_s: the tick, in seconds.
    """
    return seconds > tick_s * (1 - 1e-6)


@dataclass(frozen=True)
class Span:
    """Presentation time ``[start_s, end_s)`` that a stream covers, in seconds."""

    start_s: float
    end_s: float
    tick_s: float = field(default=1e-6, compare=False)
    """Resolution of the stream's clock in seconds. A shorter difference is rounding."""

    @property
    def tolerance_s(self) -> float:
        """Maximum error of a time in seconds: half a tick, and the rounding of float64."""
        return self.tick_s * (0.5 + 1e-6)

    def overlaps(self, start_s: float, end_s: float) -> bool:
        """Returns whether the span covers at least a tick of ``[start_s, end_s)``."""
        return at_least_a_tick(min(self.end_s, end_s) - max(self.start_s, start_s), self.tick_s)


@dataclass(frozen=True)
class MediaInfo:
    """The media in a file, detected from its content."""

    format: str
    spans: dict[Modality, Span | None] = field(default_factory=dict)
    """Modality in the file -> the time that it covers; None for an untimed text or a still image."""
    words: tuple[Span, ...] = ()
    """For a timed text, the times at which its words are shown."""
    unsupported: frozenset[Modality] = frozenset()
    """Modalities in the file whose codec is not supported."""


@dataclass(frozen=True)
class Text:
    """A text document."""

    text: str


@dataclass(frozen=True)
class Image:
    """A still image."""

    pixels: np.ndarray
    """[H, W, 3] uint8, upright, sRGB-like."""

    def __repr__(self) -> str:
        return f"Image(pixels={self.pixels.dtype}{list(self.pixels.shape)})"


@dataclass(frozen=True)
class Frames:
    """Frames of a video."""

    pixels: np.ndarray
    """[T, H, W, 3] uint8, upright."""
    times_s: np.ndarray
    """[T] float64, the presentation time of each frame in seconds."""

    def __repr__(self) -> str:
        return f"Frames(pixels={self.pixels.dtype}{list(self.pixels.shape)}, times_s={self.times_s})"


@dataclass(frozen=True)
class Waveform:
    """Audio of one channel."""

    samples: np.ndarray
    """[n] float32, mono."""
    sample_rate: int
    """Samples per second."""
    start_s: float
    """Time of ``samples[0]`` in seconds."""

    def __repr__(self) -> str:
        return f"Waveform({len(self.samples)} samples at {self.sample_rate} Hz from {self.start_s:.3f} s)"


Media = Text | Image | Frames | Waveform


@dataclass(frozen=True)
class UniformSampling:
    """Selects the pictures that are shown at the middles of ``frames`` equal slices of the span.

    If the span has fewer pictures, they are repeated with their own times.
    """

    frames: int


@dataclass(frozen=True)
class FpsSampling:
    """Selects the pictures that are shown at the times k / fps within the span (k integer, one grid for all windows).

    At least one picture is selected. If there are more than ``max_frames``, this many are selected uniformly.
    """

    fps: float
    max_frames: int | None = None


Sampling = UniformSampling | FpsSampling


@dataclass(frozen=True)
class TextRequest:
    """Asks for the text."""


@dataclass(frozen=True)
class ImageRequest:
    """Asks for the image."""


@dataclass(frozen=True)
class FramesRequest:
    """Asks for frames of a video."""

    sampling: Sampling


@dataclass(frozen=True)
class WaveformRequest:
    """Asks for the audio, resampled."""

    sample_rate: int
    """Samples per second."""


Request = TextRequest | ImageRequest | FramesRequest | WaveformRequest
