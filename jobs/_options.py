"""Arguments and options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a value: dotted.key=value.")
]
Dataset = Annotated[str, typer.Argument(help="Folder or URL of a dataset.")]
OtherVersion = Annotated[str | None, typer.Option(help="Another version than the current one.")]
Deadline = Annotated[
    str | None,
    typer.Option(help="Begin no more samples after this time: 4h, 90m. What is finished is committed."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, and nothing else, to standard output.")]
