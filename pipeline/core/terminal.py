"""Prints to a terminal with all control characters escaped.

`Console` prints text in colours and tables. `escaped_streams` covers all other output: `print`, messages of libraries
and tracebacks. Neither interprets markup: brackets in names are printed as brackets.
"""

from __future__ import annotations

import base64
import json
import math
import numbers
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import IO, Any, TextIO, cast

from rich import console as rich
from rich.cells import cell_len
from rich.segment import Segment
from rich.status import Status
from rich.text import Text

from pipeline.core.escaping import escaped
from pipeline.core.redaction import without_secrets

_MAX_TEXT = 10_000
"""Maximum characters of one text: the id of a sample may have millions."""

_SURROGATE = re.compile("[\ud800-\udfff]")
"""A lone surrogate: a byte of a file name that is not UTF-8."""

_RESET_STYLE = "\x1b[0m"
"""Ray writes this sequence when a process ends in a terminal."""


def shown(text: str) -> str:
    """Returns ``text`` on one line of visible characters, without secrets."""
    text = text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"
    return escaped(without_secrets(text))


class Console(rich.Console):
    """A `rich` console without markup that escapes invisible characters, also line breaks.

    Strings are escaped before the layout, so that columns have the width of the escaped text. Other renderables (a
    ``Text``, the columns of a progress bar) are escaped when they are written.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"highlight": False, **options, "markup": False, "emoji": False})

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(shown(text), **{**options, "markup": False, "emoji": False})

    def waiting(self) -> Status:
        """Returns a status line with a spinner. `say` sets its text."""
        return self.status(Text(""))

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        return super()._render_buffer(map(_visible, buffer))


def say(status: Status, words: str) -> None:
    """Sets the text next to the spinner of a status line."""
    status.update(Text(shown(words)))


def count(number: float, one: str, many: str | None = None) -> str:
    """Returns a number with its noun: ``1 sample``, ``2 samples``.

    Args:
        many: the plural; None: ``one`` with an ``s``.
    """
    figure = f"{number:g}" if isinstance(number, float) else str(number)
    return f"{figure} {one if number == 1 else many or f'{one}s'}"


def print_wrapped(
    console: rich.Console, text: str, indent: int = 0, hanging: int = 2, style: str | None = None
) -> None:
    """Prints ``text``, wrapped at the width of ``console``.

    Lines break at spaces only. A word longer than the width has a line of its own and is not cut, so that paths and
    names can be copied.

    Args:
        indent: columns before the first line.
        hanging: further columns before each of the other lines.
    """
    words = re.split(r" (?!· |[kMGT]?B\b)", shown(text))  # no line begins with a separator or a unit
    for line in _wrap(words, console.width, indent, hanging):
        console.print(line, soft_wrap=True, style=style)


def _wrap(words: Sequence[str], width: int, indent: int, hanging: int) -> Iterator[str]:
    """Yields the lines of a wrapped text, indented."""
    line = " " * indent + words[0]
    for word in words[1:]:
        if cell_len(line) + 1 + cell_len(word) > width:
            yield line
            line = " " * (indent + hanging) + word
        else:
            line += f" {word}"
    yield line


def print_table(
    console: rich.Console, columns: Sequence[str], rows: Iterable[Sequence[str]], figures: Sequence[str] = ()
) -> None:
    """Prints ``rows`` as a table, or as one block per row if the table is wider than ``console``. No value is cut.

    Args:
        columns: names of the columns. The first name and its value are the title of a block.
        figures: names of the columns that are aligned to the right.
    """
    table = [list(columns), *([shown(cell) for cell in row] for row in rows)]
    widths = [max(cell_len(row[i]) for row in table) for i in range(len(columns))]
    if sum(widths) + 2 * (len(widths) - 1) <= console.width:
        for number, row in enumerate(table):
            cells = []
            for name, cell, width in zip(columns, row, widths, strict=True):
                space = " " * (width - cell_len(cell))
                cells.append(f"{space}{cell}" if name in figures else f"{cell}{space}")
            console.print("  ".join(cells).rstrip(), soft_wrap=True, style=None if number else "bold")
        return
    for row in table[1:]:
        print_wrapped(console, f"{columns[0]} {row[0]}", style="bold")
        pairs = [f"{name}: {cell}" for name, cell in zip(columns[1:], row[1:], strict=True)]
        words = []
        for pair in [*(f"{pair} ·" for pair in pairs[:-1]), *pairs[-1:]]:
            words.extend([pair] if cell_len(pair) + 4 <= console.width else pair.split(" "))
        for line in _wrap(words, console.width, indent=2, hanging=2):
            console.print(line, soft_wrap=True)


def json_text(document: Any) -> str:
    """Returns ``document`` as strict JSON on one line of ASCII characters, without secrets.

    NaN and infinity become null, bytes become base64, times and other values that JSON does not have become strings.
    """
    return json.dumps(_json_value(document), allow_nan=False).replace("\x7f", "\\u007f")


def _json_value(value: Any) -> Any:
    """Returns ``value`` as a value that JSON has."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _SURROGATE.sub(lambda half: escaped(half[0]), without_secrets(value))
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, Mapping):
        return {_SURROGATE.sub(lambda half: escaped(half[0]), str(key)): _json_value(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_json_value(one) for one in value]
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    return _json_value(str(value))


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Redirects standard output of this process, its libraries and its subprocesses to standard error."""
    sys.stdout.flush()
    real = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stdout.flush()
        os.dup2(real, 1)
        os.close(real)


def _visible(segment: Segment) -> Segment:
    """Returns ``segment`` with escaped text. Control segments of `rich` are unchanged."""
    if segment.control:
        return segment
    return Segment(_escape_lines(segment.text), segment.style)


def _escape_lines(text: str) -> str:
    """Returns ``text`` with all lines escaped; line breaks are kept."""
    return "\n".join(map(escaped, text.split("\n")))


class EscapedStream:
    """A text stream that escapes what is written, except line breaks.

    `rich` finds the underlying stream by the attribute ``rich_proxied_file``.
    """

    def __init__(self, raw: TextIO) -> None:
        self.rich_proxied_file: IO[str] = raw

    def write(self, text: str) -> int:
        self.rich_proxied_file.write(text if text == _RESET_STYLE else _escape_lines(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


@contextmanager
def escaped_streams() -> Iterator[None]:
    """Context manager that escapes standard output and standard error of this process."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast("TextIO", EscapedStream(one)) for one in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def size(byte_count: int) -> str:
    """Returns a readable number of bytes, in powers of 1000: ``1.5 MB``."""
    value = float(byte_count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
