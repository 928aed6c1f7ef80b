"""What a person's terminal gets: everything from outside as visible characters, whoever prints it.

`Console` is the only way to print in colours or tables; `escaped_streams` is what remains for `print`, for the words of
libraries and for tracebacks. Neither takes markup: brackets in names are brackets.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any, TextIO, cast

from rich import console as rich
from rich.segment import Segment
from rich.status import Status
from rich.text import Text

from pipeline.escaping import escaped
from pipeline.redaction import without_secrets

_LONGEST = 10_000
"""Characters of one text: a sample's id may have millions."""

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
        super().__init__(**{**options, "markup": False, "emoji": False})

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
