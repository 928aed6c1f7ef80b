"""Reads JSON files of a checkpoint within limits, and walks their values."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from pipeline.checkpoint._regular_file import check_file
from pipeline.core.errors import ConfigError, describe

MAX_JSON_BYTES = 32 << 20
_MAX_DEPTH = 64
_MAX_VALUES = 2_500_000
"""Maximum number of values in a JSON file, counted by commas and brackets."""


def read_json(path: str, where: str) -> Any:
    """Returns the values of a JSON file of a checkpoint.

    Args:
        where: dotted path of the checkpoint in the config, for errors.

    Raises:
        ConfigError: not a file, too large, nested over 64 levels, or not JSON.
    """
    size = check_file(path, where)
    if size > MAX_JSON_BYTES:
        raise ConfigError(where, f"{path} has {size} bytes", f"at most {MAX_JSON_BYTES}")
    too_deep = ConfigError(where, f"{path} is nested too deep", f"at most {_MAX_DEPTH} levels")
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), encoding="utf-8") as file:
            text = file.read()
        if (count := sum(map(text.count, ",[{"))) > _MAX_VALUES:
            raise ConfigError(where, f"{path} has {count} values", f"at most {_MAX_VALUES}")
        values = json.loads(text)
    except (ValueError, OSError) as error:
        raise ConfigError(where, f"{path} cannot be read ({describe(error)})", "give valid JSON") from error
    except RecursionError as error:
        raise too_deep from error
    if _deeper_than(values, _MAX_DEPTH):
        raise too_deep
    return values


def walk(values: Any) -> Iterator[tuple[list[str | int], Any]]:
    """Yields (path, value) of each value, also of objects and arrays.

    The path is the same list each time and is modified afterwards: callers copy it to keep it.
    """
    names: list[str | int] = []
    yield names, values
    todo = [_items(values)]
    while todo:
        for name, value in todo[-1]:
            names.append(name)
            yield names, value
            if isinstance(value, dict | list):
                todo.append(_items(value))
                break
            names.pop()
        else:
            todo.pop()
            if names:
                names.pop()


def _items(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yields (name or index, value) of an object or an array; nothing for other values."""
    return iter(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())


def leaves(value: Any) -> list[Any]:
    """Returns all values in ``value`` that are not objects, arrays or null."""
    return [one for _, one in walk(value) if not isinstance(one, dict | list) and one is not None]


def _deeper_than(values: Any, depth: int) -> bool:
    """Returns whether objects and arrays are nested over ``depth`` levels."""
    level = [values]
    for _ in range(depth):
        level = [
            one
            for value in level
            for one in (value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
            if isinstance(one, dict | list)
        ]
        if not level:
            return False
    return True
