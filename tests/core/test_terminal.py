"""All output consists of visible characters, and no module prints in another way."""

from __future__ import annotations

import ast
import datetime
import decimal
import io
import json
import logging
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest
from rich.panel import Panel
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

from pipeline.core.terminal import Console, count, escaped_streams, json_text, print_table, print_wrapped, say, shown
from tests.support import ROOT

HOSTILE = "[red]\x1b]0;t\x07\x9b1m\u202e\u200b\u2028\x7f\r:smile:"
SHOWN = r"[red]\x1b]0;t\x07\x9b1m\u202e\u200b\u2028\x7f\r:smile:"


def _printed(*what: object, terminal: bool = True) -> str:
    file = io.StringIO()
    console = Console(file=file, width=200, force_terminal=terminal, color_system=None)
    console.print(*what, soft_wrap=True)
    return file.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_every_way_to_print(terminal: bool) -> None:
    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE)
    for what, times in ((HOSTILE, 1), (Text(HOSTILE), 1), (Panel(HOSTILE, title=HOSTILE), 2), (table, 3)):
        printed = _printed(what, terminal=terminal)
        assert "".join(one for one in printed if not one.isprintable()).strip("\n") == ""
        assert printed.count(SHOWN) == times or not isinstance(what, str)
        assert r"\x1b]0;t" in printed  # rich takes some control characters out of a Text
    assert _printed(["a", "b"]) == "['a', 'b']\n"


def test_a_line_is_a_line() -> None:
    """A name with a line break must not look like another line of the report."""
    assert _printed("a\ndataset: /wrong") == "a\\ndataset: /wrong\n"
    assert _printed(Text("a\nb")) == "a\nb\n"  # laid out by us


def test_tables_are_as_wide_as_what_they_show() -> None:
    table = Table("a", "b", box=None, pad_edge=False)
    table.add_row("\x1b\x1b", "x")
    table.add_row("yy", "x")
    lines = _printed(table).splitlines()
    assert lines[1].index("x", 8) == lines[2].index("x")


def test_secrets_are_hidden_and_texts_bounded() -> None:
    assert _printed("dataset: s3://user:hunter2@bucket/x") == "dataset: s3://***@bucket/x\n"
    assert len(shown("a" * 1_000_000)) == 10_001


def test_bars_and_spinners() -> None:
    file = io.StringIO()
    console = Console(file=file, width=100, force_terminal=True, color_system=None)
    with Progress(TextColumn("{task.fields[name]}"), console=console) as bar:
        bar.add_task("x", name="a\x1b]0;t\x07b")
    with console.waiting() as status:
        say(status, "[/red]a\x1b]0;t\x07b")
        status._live.refresh()
    assert "\x1b]" not in file.getvalue()
    assert file.getvalue().count(r"a\x1b]0;t\x07b") >= 2


def test_what_libraries_say_in_their_own_way(capsys: pytest.CaptureFixture[str]) -> None:
    with escaped_streams():
        print(HOSTILE, HOSTILE, sep="\n")
        print("err", HOSTILE, file=sys.stderr)
        sys.stdout.writelines(["a\n", "b\x1b[1m\n"])
        handler = logging.StreamHandler()
        logging.getLogger("tessera-test").addHandler(handler)
        logging.getLogger("tessera-test").error(HOSTILE)
        logging.getLogger("tessera-test").removeHandler(handler)
        sys.stderr.write(warnings.formatwarning(HOSTILE, UserWarning, "x.py", 1))  # as the interpreter does
        Console(width=200).print(HOSTILE)
        assert sys.stdout.isatty() is False
    out, err = capsys.readouterr()
    assert out == f"{SHOWN}\n{SHOWN}\na\nb\\x1b[1m\n{SHOWN}\n"
    assert err.count(SHOWN) == 3
    assert "\x1b" not in err


@pytest.mark.parametrize(
    ("number", "words", "expected"),
    [
        (0, ("sample",), "0 samples"),
        (1, ("sample",), "1 sample"),
        (2, ("sample",), "2 samples"),
        (1234567, ("row",), "1234567 rows"),
        (1.0, ("core",), "1 core"),
        (1.5, ("core",), "1.5 cores"),
        (1, ("file is", "files are"), "1 file is"),
        (3, ("file is", "files are"), "3 files are"),
    ],
)
def test_counts(number: float, words: tuple[str, ...], expected: str) -> None:
    assert count(number, *words) == expected


def _lines(function: Any, *args: Any, width: int, **options: Any) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    function(console, *args, **options)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_lines_wrap_at_spaces_and_words_stay_whole() -> None:
    long = "/a/path/of/more/than/twenty/columns"
    text = f"one two three {long} four [red] · five"
    lines = _lines(print_wrapped, text, width=20, indent=2)
    assert lines == ["  one two three", f"    {long}", "    four [red] ·", "    five"]
    assert _lines(print_wrapped, "a\n\x1b[1mb", width=20) == [r"a\n\x1b[1mb"]
    assert _lines(print_wrapped, "", width=20) == [""]
    assert _lines(print_wrapped, "音" * 8 + " x " + "a" * 6, width=20) == [
        "音" * 8 + " x",
        "  aaaaaa",
    ]  # 2 columns each


def test_a_table_is_as_wide_as_the_terminal_or_blocks() -> None:
    rows = [["a", "10", "x, y"], ["longer", "5", "z\x1b"]]
    columns = ["name", "size", "of"]
    assert _lines(print_table, columns, rows, ["size"], width=20) == [
        "name    size  of",
        "a         10  x, y",
        r"longer     5  z\x1b",
    ]
    assert _lines(print_table, columns, rows, ["size"], width=17) == [
        *("name a", "  size: 10 ·", "    of: x, y"),
        *("name longer", "  size: 5 ·", r"    of: z\x1b"),
    ]
    assert _lines(print_table, columns, [], width=80) == ["name  size  of"]


def test_json_is_strict_and_of_visible_characters() -> None:
    document = {
        "text": HOSTILE,
        "a byte that is no UTF-8": "\udcff",
        "url": "s3://user:hunter2@bucket/x",
        "floats": [float("nan"), float("inf"), -float("inf"), 0.1, np.float16(0.5)],
        "integers": (1, np.int64(2), True, None),
        "bytes": b"\x00",
        "time": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
        "decimal": decimal.Decimal("1.50"),
        7: {"set": {3}},
    }
    text = json_text(document)
    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text, parse_constant=lambda name: pytest.fail(name)) == {
        "text": HOSTILE,
        "a byte that is no UTF-8": r"\xff",
        "url": "s3://***@bucket/x",
        "floats": [None, None, None, 0.1, 0.5],
        "integers": [1, 2, True, None],
        "bytes": "AA==",
        "time": "2026-01-01T00:00:00+00:00",
        "decimal": "1.50",
        "7": {"set": [3]},
    }


def test_standard_output_is_free_for_a_document() -> None:
    command = [sys.executable, "-m", "tests.core.programs.print_within_stdout_to_stderr"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "before\nafter\n"
    assert sorted(done.stderr.split()) == ["child", "native", "python"]


def test_streams_come_back() -> None:
    before = sys.stdout, sys.stderr
    with pytest.raises(ValueError, match="x"), escaped_streams():
        raise ValueError("x")
    assert (sys.stdout, sys.stderr) == before


def test_nobody_prints_another_way() -> None:
    """The console of `rich` does not escape; `print` is escaped in the command only."""
    for path in [*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "jobs").rglob("*.py")]:
        tree = ast.parse(path.read_text())
        calls = {
            node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        if path.name != "terminal.py":
            assert not modules & {"rich.console", "rich"} or _of_rich(tree) <= {"Group", "RenderableType"}, path
        if path.parent.name not in ("jobs", "examples"):  # `run` of the examples escapes, too
            assert "print" not in calls, path


def _of_rich(tree: ast.AST) -> set[str]:
    return {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in ("rich", "rich.console")
        for alias in node.names
    }
