"""Checks the numbers in the config of an audio feature extractor that determine the size of its filters."""

from __future__ import annotations

import math
import re
from typing import Any

from pipeline.checkpoint._json import walk
from pipeline.checkpoint._numbers import shortened
from pipeline.core.errors import ConfigError, one_line

_MAX_SPECTRUM = 1 << 16
"""Maximum of each number that `_SPECTRUM` matches."""
_MAX_FILTERS = 1 << 23
"""Maximum number of filter weights: frequencies times bands."""
_SPECTRUM = re.compile(
    r"(?:^|_)(?:n_fft|fft_(?:length|size|window_size)|hop_length|feature_size|num_mel_bins|n_mels|chunk_length(?:_s)?|max_length_s|sampling_rate)$"
)
_RATE = re.compile(r"_rate$")
_BANDS = re.compile(r"(?:^|_)(?:feature_size|num_mel_bins|n_mels)$")
_FREQUENCIES = re.compile(r"(?:^|_)(?:n_fft|fft_(?:length|size|window_size))$")
_USUAL = {_BANDS: 128, _FREQUENCIES: 1024}
"""Defaults for an extractor whose config has no such number."""


def check_audio_filters(values: Any, path: str, where: str) -> None:
    """Raises ``ConfigError`` if a feature extractor would create too large filters [frequencies, bands] when it is
    loaded."""
    largest = dict(_USUAL)
    for names, value in walk(values):
        key = names[-1] if names else ""
        if not (isinstance(key, str) and _SPECTRUM.search(key)) or value is None or isinstance(value, bool):
            continue
        place = ".".join(map(str, names))
        if not isinstance(value, int | float) or (isinstance(value, float) and not math.isfinite(value)):
            raise ConfigError(where, f"{path}: {place} is {one_line(repr(value), 60)}", "a number")
        if value > _MAX_SPECTRUM and not _RATE.search(key):
            raise ConfigError(where, f"{path}: {place} is {shortened(value)}", f"at most {_MAX_SPECTRUM}")
        for kind in largest:
            largest[kind] = max(largest[kind], int(value)) if kind.search(key) else largest[kind]
    frequencies, bands = largest[_FREQUENCIES] // 2 + 1, largest[_BANDS]
    if frequencies * bands > _MAX_FILTERS:
        found = f"{path} has filters of {frequencies} frequencies in {bands} bands"
        raise ConfigError(where, found, f"at most {_MAX_FILTERS} of both, multiplied")
