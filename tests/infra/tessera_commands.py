"""Checks that a command line is one of `tessera`."""

from __future__ import annotations

import shlex
from typing import Any


def check_command(line: str) -> dict[str, Any]:
    """Parses subcommand, options and arguments of `.../tessera ...`, without running it; returns the values."""
    import typer

    from jobs.cli import app

    program, name, *arguments = shlex.split(line)
    assert program.rpartition("/")[2] == "tessera"
    group: Any = typer.main.get_command(app)
    while hasattr(command := group.commands[name], "commands"):
        group, (name, *arguments) = command, arguments
    return dict(command.make_context(name, arguments).params)
