"""JSON that somebody else may have written: parsed within bounds, and read value by value with its type.

Every mistake is a ``ConfigError`` of one line that names the file and the place in it.
"""

from __future__ import annotations

import itertools
import json
import math
import operator
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from pipeline.core.errors import ConfigError, one_line

MAX_DEPTH = 64
"""Of values that are kept as they are."""
MAX_INT = 2**63 - 1
MAX_NESTED = 4_000_000
"""Arrays and objects of a file: an empty one has two bytes there, and 64 in memory."""
_RESTORE = "restore the file"


@dataclass(frozen=True)
class Value:
    """One JSON value, and where it stands: ``/data/v1/_snapshots/00000001.json``, ``shards[3].rows``."""

    value: Any
    file: str
    place: str = ""

    def object(self) -> dict[str, Value]:
        """The members of an object."""
        if not isinstance(self.value, dict):
            self.fail("an object")
        return {key: Value(value, self.file, f"{self.place}.{key}".lstrip(".")) for key, value in self.value.items()}

    def member(self, key: str, *default: Any) -> Value:
        """A member of an object; ``default`` where it has none. Raises ``ConfigError`` if it must have one."""
        if not isinstance(self.value, dict):
            self.fail("an object")
        if key not in self.value and not default:
            raise self._error(f"has no {key!r}", "what the writer put there")
        return Value(self.value.get(key, *default), self.file, f"{self.place}.{key}".lstrip("."))

    def items(self) -> Iterator[Value]:
        """The items of an array."""
        if not isinstance(self.value, list):
            self.fail("an array")
        for i, one in enumerate(self.value):
            yield Value(one, self.file, f"{self.place}[{i}]")

    def integer(self, least: int = 0, most: int = MAX_INT) -> int:
        if type(self.value) is not int or not least <= self.value <= most:
            self.fail(f"a whole number from {least} to {most}")
        return int(self.value)

    def number(self) -> float:
        if type(self.value) not in (int, float) or not abs(self.value) <= MAX_INT:
            self.fail("a number")
        return float(self.value)

    def boolean(self) -> bool:
        if type(self.value) is not bool:
            self.fail("true or false")
        return bool(self.value)

    def string(self, pattern: re.Pattern[str] | None = None, what: str = "a string", most: int = 4096) -> str:
        """A string of at most ``most`` characters that ``pattern`` matches as a whole."""
        if not isinstance(self.value, str) or len(self.value) > most or not _is_text(self.value):
            self.fail(what)
        if pattern is not None and not pattern.fullmatch(self.value):
            self.fail(what)
        return str(self.value)

    def integers(self, below: int) -> tuple[int, ...]:
        """An array of whole numbers from 0 to less than ``below``, ascending and none twice."""
        found = self.value
        if not isinstance(found, list) or not {*map(type, found)} <= {int}:
            self.fail("an array of whole numbers")
        if not all(map(operator.lt, found, itertools.islice(found, 1, None))):
            raise self._error("is not ascending", "each number once, in order")
        if found and not (found[0] >= 0 and found[-1] < below):
            raise self._error(f"goes from {found[0]} to {found[-1]}", f"numbers from 0 to {below - 1}")
        return tuple(found)

    def plain(self, depth: int = MAX_DEPTH) -> Any:
        """The value as it is: nested less than ``depth`` times, of texts and finite numbers."""
        if (bad := _first_not_plain(self.value, depth)) is not None:
            steps, value, allowed = bad
            found = Value(value, self.file, (self.place + "".join(reversed(steps))).lstrip("."))
            if allowed is None:
                raise found._error("is nested too deep", f"at most {MAX_DEPTH} levels")
            found.fail(allowed)
        return self.value

    def fail(self, allowed: str) -> NoReturn:
        """Raises ``ConfigError``: found this value, allowed is what is given."""
        value = self.value[:60] if isinstance(self.value, str) else self.value
        found = "an object" if isinstance(value, dict) else "an array" if isinstance(value, list) else repr(value)
        raise self._error(f"is {one_line(found, 60)}", allowed)

    def _error(self, found: str, allowed: str) -> ConfigError:
        place = f"{self.file!r}: {one_line(self.place, 100)}" if self.place else repr(self.file)
        return ConfigError("path", f"{place} {one_line(found, 200)}", f"{allowed}; {_RESTORE}")


def parse(data: bytes | str, file: str) -> Value:
    """The JSON text of ``file``.

    Raises:
        ConfigError: it is no JSON, no UTF-8, nested too deep, has too many arrays and objects, or holds a number that
            is none (``NaN``) or has thousands of digits.
    """
    text = data.encode(errors="replace") if isinstance(data, str) else data
    nested = text.count(b"[") + text.count(b"{")
    if nested > MAX_NESTED:
        raise ConfigError("path", f"{file!r} has {nested} arrays and objects", f"at most {MAX_NESTED}")
    try:
        return Value(json.loads(data, parse_constant=_no_constant, object_pairs_hook=_once), file)
    except RecursionError:
        raise ConfigError("path", f"{file!r} is nested too deep", _RESTORE) from None
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are
        raise ConfigError("path", f"{file!r} is not JSON ({one_line(str(error), 200)})", _RESTORE) from error


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"{twice[:60]!r} is there twice")
    return found


def _first_not_plain(value: Any, depth: int) -> tuple[list[str], Any, str | None] | None:
    """Returns the first value that is not plain: its path (last step first), the value, and what is allowed (None: it
    is nested too deep). Creates no `Value` per item: for millions of items that takes a minute."""
    if depth == 0:
        return [], value, None
    if isinstance(value, str):
        return None if _is_text(value) else ([], value, "a text")
    if isinstance(value, float):
        return None if math.isfinite(value) else ([], value, "a number")
    if isinstance(value, dict):
        for key, one in value.items():
            if not _is_text(key):
                return [], key, "a text"
            if (bad := _first_not_plain(one, depth - 1)) is not None:
                bad[0].append(f".{key}")
                return bad
    elif isinstance(value, list):
        for i, one in enumerate(value):
            if (bad := _first_not_plain(one, depth - 1)) is not None:
                bad[0].append(f"[{i}]")
                return bad
    return None


def _is_text(value: str) -> bool:
    """False for half of a surrogate pair, which no file and no terminal takes."""
    return value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value)
