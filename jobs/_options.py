"""Arguments and options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a value: dotted.key=value.")
]
Dataset = Annotated[str, typer.Argument(help="Folder or URL of a dataset.")]
OtherVersion = Annotated[str | None, typer.Option(help="Another version than the current one.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, and nothing else, to standard output.")]
