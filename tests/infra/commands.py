"""The one place where the tests of `infra/` parse a command line of Tessera, with its own parser."""

from __future__ import annotations

import shlex
from typing import Any

import typer

from jobs.cli import app


def parse(command: str | list[str]) -> tuple[str, dict[str, Any]]:
    """Parses `tessera SUBCOMMAND ...`; runs nothing. Returns the subcommand and its values. Unknown options raise."""
    program, name, *arguments = shlex.split(command) if isinstance(command, str) else command
    assert program.rpartition("/")[2] == "tessera"
    found: Any = typer.main.get_command(app).commands[name]
    while hasattr(found, "commands"):  # such as `tessera jobs stop`
        name, (one, *arguments) = f"{name} {arguments[0]}", arguments
        found = found.commands[one]
    values = found.make_context(name, arguments).params
    return name, {_PARAMETERS.get(parameter, parameter): value for parameter, value in values.items()}


_PARAMETERS = {"is_night": "nightly", "overrides": "set"}
"""Parameters that are named otherwise than their options."""
