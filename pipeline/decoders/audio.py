"""Windows of a sound as mono waveforms at any sample rate.

Sample n of the target rate is n / rate seconds after the stream's start, in all windows. Neighbouring windows therefore
join without a gap, a repetition or an edge effect.
"""

from __future__ import annotations

import math

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pipeline.core.errors import SampleError
from pipeline.core.media import Waveform
from pipeline.decoders._shared.resampling import resampled
from pipeline.decoders._shared.samples import Samples


class AudioConfig(BaseModel):
    """How sound is decoded."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    soundfile: bool = True
    """False: sound files are decoded with PyAV. True: with soundfile if it can read them."""
    max_sample_rate: int = Field(default=768_000, ge=1)
    """Maximum sample rate in the header, Hz; a higher one is a failure (``limit``)."""
    max_window_bytes: int = Field(default=1 << 30, ge=1)
    """Maximum bytes of one window: seconds x the higher of its own and the requested rate x 4. More is a failure
    (``limit``) before memory is allocated."""

    def check_rate(self, rate: int) -> None:
        """Raises ``SampleError`` (``limit``, ``corrupt``) for a rate that cannot be converted."""
        if rate <= 0:
            raise SampleError("corrupt", f"sample rate {rate}")
        if rate > self.max_sample_rate:
            raise SampleError("limit", f"sample rate {rate} Hz, over max_sample_rate {self.max_sample_rate}")

    def check_window(self, seconds: float, rate: int) -> None:
        """Raises ``SampleError`` (``limit``) for a window that is too long."""
        size = seconds * rate * 4
        if size > self.max_window_bytes:
            message = f"{seconds:.0f} seconds of sound at {rate} Hz are {size:.0f} bytes"
            raise SampleError("limit", f"{message}, over max_window_bytes {self.max_window_bytes}: cut shorter windows")


def waveform(samples: Samples, sample_rate: int, start_s: float, end_s: float) -> Waveform:
    """The window ``[start_s, end_s)`` of a stream, mono, at ``sample_rate`` Hz.

    Raises:
        SampleError: ``empty`` if the stream has no sample in the window; ``corrupt`` for NaN.
    """
    origin = samples.span.start_s
    first = max(0, math.ceil((start_s - origin) * sample_rate - 1e-6))
    stop = math.ceil((end_s - origin) * sample_rate - 1e-6)
    mono = resampled(samples.read, samples.rate, sample_rate, first, stop) if stop > first else np.zeros(0, np.float32)
    if not len(mono):
        raise SampleError("empty", f"no samples between {start_s:.3f} s and {end_s:.3f} s")
    if not np.isfinite(mono).all():
        raise SampleError("corrupt", "samples that are not finite numbers")
    return Waveform(mono, sample_rate, origin + first / sample_rate)
