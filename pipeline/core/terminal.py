"""What a person's terminal gets: everything from outside as visible characters, whoever prints it.

`Console` is the only way to print in colours or tables; `escaped_streams` is what remains for `print`, for the words of
libraries and for tracebacks. Neither takes markup: brackets in names are brackets.
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

_LONGEST = 10_000
"""Characters of one text: a sample's id may have millions."""

_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a character: a byte of a file name that is not UTF-8."""

_END_OF_COLOURS = "\x1b[0m"
"""Ray writes it by itself when a process ends in a terminal."""


def shown(text: str) -> str:
    """``text`` on one line, of visible characters, without secrets."""
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    return escaped(without_secrets(text))


class Console(rich.Console):
    """A `rich` console that prints texts as they are and escapes what is not visible in them, line breaks too.

    Texts are escaped before they are laid out, so that a table has the width of what it shows. Whatever comes another
    way (a ``Text``, the columns of a progress bar) is escaped when it is written.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"highlight": False, **options, "markup": False, "emoji": False})

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(shown(text), **{**options, "markup": False, "emoji": False})

    def waiting(self) -> Status:
        """A line that says what goes on; `say` changes it."""
        return self.status(Text(""))

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        return super()._render_buffer(map(_visible, buffer))


def say(status: Status, words: str) -> None:
    """Shows ``words`` beside the spinner."""
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
    """Prints ``text`` on as many lines as the width of ``console`` requires.

    Lines break at spaces only. A word that is longer than the width gets a line of its own and is not cut, so that
    paths and names can be copied.

    Args:
        indent: of the first line, in columns.
        hanging: further columns before each of the next lines.
    """
    words = re.split(r" (?!· |[kMGT]?B\b)", shown(text))  # no line begins with a separator or a unit
    for line in _wrap(words, console.width, indent, hanging):
        console.print(line, soft_wrap=True, style=style)


def _wrap(words: Sequence[str], width: int, indent: int, hanging: int) -> Iterator[str]:
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
    """Prints ``rows`` as a table; as one block per row where the table is wider than ``console``. No value is cut.

    Args:
        columns: names. The first one and its value are the title of a block.
        figures: names of the columns that are aligned at the right.
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
    """Returns one strict JSON document on one line, of ASCII characters, without secrets.

    NaN and infinity become null, bytes become base64, times and other values that JSON does not have become strings.
    """
    return json.dumps(_plain(document), allow_nan=False).replace("\x7f", "\\u007f")


def _plain(value: Any) -> Any:
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
        return {_SURROGATE.sub(lambda half: escaped(half[0]), str(key)): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one) for one in value]
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    return _plain(str(value))


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Sends to standard error what this process, its libraries and its subprocesses print to standard output."""
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
    if segment.control:
        return segment
    return Segment(_lines(segment.text), segment.style)


def _lines(text: str) -> str:
    return "\n".join(map(escaped, text.split("\n")))


class EscapedStream:
    """A text stream whose writes are escaped, line breaks aside. `rich` finds the stream below by itself."""

    def __init__(self, raw: TextIO) -> None:
        self.rich_proxied_file: IO[str] = raw

    def write(self, text: str) -> int:
        self.rich_proxied_file.write(text if text == _END_OF_COLOURS else _lines(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


@contextmanager
def escaped_streams() -> Iterator[None]:
    """Standard output and error of this process, for as long as it lasts."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast("TextIO", EscapedStream(one)) for one in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def size(byte_count: int) -> str:
    """Bytes for a person: 1.5 MB."""
    value = float(byte_count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
