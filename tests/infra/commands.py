"""The one place where the tests of `infra/` parse a command line of Tessera, as its own parser does."""

from __future__ import annotations

import argparse
import shlex
from typing import Any

import typer

from jobs.cli import app

PLANNED = {
    "nightly": ["--engine", "--deadline", "--wait", "--partial-exit", "--summary"],
    "submit": ["--nightly", "--deadline", "--wait", "--partial-exit"],
}
"""Options of the nightly run, as documented. MERGE: when `tessera nightly` and `tessera submit --nightly` are there,
remove this and `_planned`; until then the options that Tessera's parser lacks are parsed here."""


def parse(command: str | list[str]) -> tuple[str, dict[str, Any]]:
    """Parses `tessera SUBCOMMAND ...`; runs nothing. Returns the subcommand and its values. Unknown options raise."""
    program, name, *arguments = shlex.split(command) if isinstance(command, str) else command
    assert program == "tessera"
    values, rest = _planned(name, arguments)
    real = _commands().get(name)
    if real is None:
        (config,) = rest
        return name, {"config": config, **values}
    return name, {**real.make_context(name, rest).params, **values}


def has_nightly() -> bool:
    """Whether Tessera's own parser has the nightly run already."""
    return "nightly" in _commands()


def _commands() -> dict[str, Any]:
    group: Any = typer.main.get_command(app)
    return dict(group.commands)


def _planned(name: str, arguments: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Returns the values of options that Tessera's parser does not have yet, and the other arguments."""
    real = _commands().get(name)
    there = {option for parameter in real.params for option in parameter.opts} if real else set()
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for option in PLANNED.get(name, []):
        if option not in there:
            parser.add_argument(option, action="store_true" if option == "--nightly" else "store")
    found, rest = parser.parse_known_args(arguments)
    return vars(found), rest
