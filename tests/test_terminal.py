"""Whatever is printed, in whatever way, holds visible characters only; and nobody prints another way."""

from __future__ import annotations

import ast
import io
import logging
import sys
import warnings
from pathlib import Path

import pytest
from rich.panel import Panel
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

from pipeline.terminal import Console, escaped_streams, say, shown

ROOT = Path(__file__).resolve().parent.parent
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
    for what, count in ((HOSTILE, 1), (Text(HOSTILE), 1), (Panel(HOSTILE, title=HOSTILE), 2), (table, 3)):
        printed = _printed(what, terminal=terminal)
        assert "".join(one for one in printed if not one.isprintable()).strip("\n") == ""
        assert printed.count(SHOWN) == count or not isinstance(what, str)
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


def test_streams_come_back() -> None:
    before = sys.stdout, sys.stderr
    with pytest.raises(ValueError, match="x"), escaped_streams():
        raise ValueError("x")
    assert (sys.stdout, sys.stderr) == before


def test_nobody_prints_another_way() -> None:
    """`rich`'s own console knows nothing of this; `print` is escaped in the command only."""
    for path in [*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "jobs").rglob("*.py")]:
        tree = ast.parse(path.read_text())
        calls = {
            node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        if path.name != "terminal.py":
            assert not modules & {"rich.console", "rich"} or _of_rich(tree) <= {"Group", "RenderableType"}, path
        if path.parent.name != "jobs":
            assert "print" not in calls, path


def _of_rich(tree: ast.AST) -> set[str]:
    return {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in ("rich", "rich.console")
        for alias in node.names
    }
