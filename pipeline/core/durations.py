"""Durations as people write them: ``7d``, ``12h``, ``90m``, ``30s``, ``2w``."""

from __future__ import annotations

import re

from pipeline.core.errors import ConfigError

_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhdw])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_MAX_S = 5200 * _SECONDS["w"]


def seconds(text: str, where: str) -> float:
    """Returns a duration in seconds.

    Args:
        text: a number and a unit.
        where: the option or the key of the config, for the error.

    Raises:
        ConfigError: ``text`` is no duration, or one of over 5200 weeks.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ConfigError(where, f"found {text!r}", "a number and one of s, m, h, d, w: 7d")
    found = float(match[1]) * _SECONDS[match[2]]
    if found > _MAX_S:
        raise ConfigError(where, f"found {text!r}", f"at most {_MAX_S / _SECONDS['w']:.0f}w")
    return found
