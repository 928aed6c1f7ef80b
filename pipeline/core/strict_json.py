"""Parses untrusted JSON within limits, and reads its values with type checks.

Every mistake raises a ``ConfigError`` of one line that names the file and the place in it.
"""

from __future__ import annotations

import itertools
import json
import math
import operator
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from pipeline.core.errors import ConfigError, one_line

MAX_DEPTH = 64
"""Maximum nesting of a value that is read by `Value.plain`."""
MAX_INT = 2**63 - 1
MAX_NESTED = 4_000_000
"""Maximum number of arrays and objects in a file: an empty one takes two bytes in the file, and 64 in memory."""
_RESTORE = "restore the file"


@dataclass(frozen=True)
class Value:
    """A JSON value with its origin.

    Args:
        file: for example ``/data/v1/_snapshots/00000001.json``.
        place: path of the value in the file, for example ``shards[3].rows``.
    """

    value: Any
    file: str
    place: str = ""

    def object(self) -> dict[str, Value]:
        """Returns the members of an object."""
        if not isinstance(self.value, dict):
            self.fail("an object")
        return {key: Value(value, self.file, f"{self.place}.{key}".lstrip(".")) for key, value in self.value.items()}

    def member(self, key: str, *default: Any) -> Value:
        """Returns a member of an object; ``default`` if it is missing. Without ``default`` a missing member is an
        error."""
        if not isinstance(self.value, dict):
            self.fail("an object")
        if key not in self.value and not default:
            raise self._error(f"has no {key!r}", "what the writer put there")
        return Value(self.value.get(key, *default), self.file, f"{self.place}.{key}".lstrip("."))

    def items(self) -> Iterator[Value]:
        """Yields the items of an array."""
        if not isinstance(self.value, list):
            self.fail("an array")
        for i, one in enumerate(self.value):
            yield Value(one, self.file, f"{self.place}[{i}]")

    def integer(self, least: int = 0, most: int = MAX_INT) -> int:
        """Returns an integer from ``least`` to ``most``."""
        if type(self.value) is not int or not least <= self.value <= most:
            self.fail(f"a whole number from {least} to {most}")
        return int(self.value)

    def number(self) -> float:
        """Returns a finite number as a float."""
        if type(self.value) not in (int, float) or not abs(self.value) <= MAX_INT:
            self.fail("a number")
        return float(self.value)

    def boolean(self) -> bool:
        """Returns a boolean."""
        if type(self.value) is not bool:
            self.fail("true or false")
        return bool(self.value)

    def string(self, pattern: re.Pattern[str] | None = None, what: str = "a string", most: int = 4096) -> str:
        """Returns a string.

        Args:
            pattern: must match the whole string.
            what: description of an allowed value, for the error.
            most: maximum length in characters.
        """
        if not isinstance(self.value, str) or len(self.value) > most or not _is_text(self.value):
            self.fail(what)
        if pattern is not None and not pattern.fullmatch(self.value):
            self.fail(what)
        return str(self.value)

    def integers(self, below: int) -> tuple[int, ...]:
        """Returns an array of strictly ascending integers from 0 to less than ``below``."""
        found = self.value
        if not isinstance(found, list) or not {*map(type, found)} <= {int}:
            self.fail("an array of whole numbers")
        if not all(map(operator.lt, found, itertools.islice(found, 1, None))):
            raise self._error("is not ascending", "each number once, in order")
        if found and not (found[0] >= 0 and found[-1] < below):
            raise self._error(f"goes from {found[0]} to {found[-1]}", f"numbers from 0 to {below - 1}")
        return tuple(found)

    def plain(self, depth: int = MAX_DEPTH) -> Any:
        """Returns the value unchanged: nested less than ``depth`` times, with valid strings and finite numbers only."""
        if (bad := _first_not_plain(self.value, depth)) is not None:
            steps, value, allowed = bad
            found = Value(value, self.file, (self.place + "".join(reversed(steps))).lstrip("."))
            if allowed is None:
                raise found._error("is nested too deep", f"at most {MAX_DEPTH} levels")
            found.fail(allowed)
        return self.value

    def fail(self, allowed: str) -> NoReturn:
        """Raises ``ConfigError`` for this value.

        Args:
            allowed: what is allowed in its place.
        """
        value = self.value[:60] if isinstance(self.value, str) else self.value
        found = "an object" if isinstance(value, dict) else "an array" if isinstance(value, list) else repr(value)
        raise self._error(f"is {one_line(found, 60)}", allowed)

    def _error(self, found: str, allowed: str) -> ConfigError:
        place = f"{self.file!r}: {one_line(self.place, 100)}" if self.place else repr(self.file)
        return ConfigError("path", f"{place} {one_line(found, 200)}", f"{allowed}; {_RESTORE}")


def parse(data: bytes | str, file: str) -> Value:
    """Parses the JSON text of ``file``.

    Raises:
        ConfigError: not JSON, not UTF-8, a duplicate name, nested too deep, too many arrays and objects, ``NaN`` or
            infinity, a number of thousands of digits.
    """
    text = data.encode(errors="replace") if isinstance(data, str) else data
    nested = text.count(b"[") + text.count(b"{")
    if nested > MAX_NESTED:
        raise ConfigError("path", f"{file!r} has {nested} arrays and objects", f"at most {MAX_NESTED}")
    try:
        return Value(json.loads(data, parse_constant=_refuse_constant, object_pairs_hook=_unique_members), file)
    except RecursionError:
        raise ConfigError("path", f"{file!r} is nested too deep", _RESTORE) from None
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are
        raise ConfigError("path", f"{file!r} is not JSON ({one_line(str(error), 200)})", _RESTORE) from error


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns the members of an object. Raises ``ValueError`` for a duplicate name."""
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        duplicate = next(name for name, count in counts.items() if count > 1)
        raise ValueError(f"{duplicate[:60]!r} is there twice")
    return found


def _first_not_plain(value: Any, depth: int) -> tuple[list[str], Any, str | None] | None:
    """Returns the first value that is not plain: its path (last step first), the value, and what is allowed (None: it
    is nested too deep).

    Creates no `Value` per item, which would take a minute for millions of items.
    """
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
    """Returns whether a string has no lone surrogates, which cannot be encoded as UTF-8."""
    return value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value)
