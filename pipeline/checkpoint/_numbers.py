"""Checks the numbers in a config that determine the size of a model."""

from __future__ import annotations

import re
from typing import Any

from pipeline.checkpoint._json import walk
from pipeline.core.errors import ConfigError

_MAX_NUMBER = 1 << 31
_MAX_LABELS = 1_000_000
_MIN_LAYER_LIMIT = 1000
"""Number of layers that is always allowed."""
_LAYER_COUNT = re.compile(r"(?:^|_)(?:layers?|blocks|depths?|stages|levels)$")
_MAY_BE_LARGE = re.compile(r"theta|base|seed|_ids?$|parameters")


def check_numbers(config: Any, tensors: int, path: str, where: str) -> None:
    """Checks that a config does not describe a far larger model than the weights.

    Args:
        config: values of the config.
        tensors: number of tensors in the weight files, of which each layer has at least one. 0: there are no weights.
        path: of the config, for errors.
        where: dotted path of the checkpoint in the config, for errors.

    Raises:
        ConfigError: a number is too large.
    """
    layers = max(tensors, _MIN_LAYER_LIMIT)
    for names, value in walk(config):
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue  # NaN passes all comparisons below; torch refuses it
        key = next((name for name in reversed(names) if isinstance(name, str)), "")
        allowed = ""
        if abs(value) > _MAX_NUMBER and not _MAY_BE_LARGE.search(key) and isinstance(value, int):
            allowed = f"at most {_MAX_NUMBER}"
        elif _LAYER_COUNT.search(key) and value > layers:
            allowed = f"the weights hold {tensors} tensors"
        elif key == "num_labels" and value > _MAX_LABELS:
            allowed = f"at most {_MAX_LABELS}"
        if allowed:
            raise ConfigError(where, f"{path}: {'.'.join(map(str, names))} is {shortened(value)}", allowed)


def shortened(value: float) -> str:
    """Returns a number as text; its length in bits if it has too many digits."""
    return str(value) if isinstance(value, float) or abs(value) < 10**30 else f"a number of {value.bit_length()} bits"
