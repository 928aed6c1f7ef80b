"""The commands that export a dataset for other libraries, and write its card."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

import typer

from jobs._console import reserved_stdout
from jobs._options import Dataset, Json, OtherVersion
from pipeline.core.terminal import Console, json_text, say

Snapshot = Annotated[
    str | None, typer.Option(metavar="N|NAME", help="Number of a snapshot, or name of a pin, instead of the newest.")
]


def export(
    dataset: Dataset,
    out: Annotated[str, typer.Argument(metavar="OUT", help="A new or an empty folder, or a URL.")],
    format: Annotated[
        Literal["webdataset", "lance", "datasets"], typer.Option(help="Library that will read the export.")
    ],
    columns: Annotated[
        list[str] | None, typer.Option(metavar="NAME,NAME", help="Columns to export; may be repeated. None: all.")
    ] = None,
    version: OtherVersion = None,
    snapshot: Snapshot = None,
    shard_rows: Annotated[int | None, typer.Option(help="Largest number of rows in a file. None: any.")] = None,
    shard_bytes: Annotated[int, typer.Option(help="A file is closed once it holds this much.")] = 1 << 30,
    as_json: Json = False,
) -> None:
    """Write the rows of a snapshot as WebDataset shards, a Lance dataset or a `datasets` folder."""
    from pipeline import export as exports

    with reserved_stdout(as_json), Console(stderr=as_json).waiting() as status:
        limits = exports.ShardLimits(shard_rows, shard_bytes)
        done = exports.export_dataset(
            dataset, out, format, columns or (), version, _parse(snapshot), limits, partial(say, status)
        )
    _print(as_json, done)


def card(
    dataset: Dataset,
    out: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Where to write it, instead of beside the data.")
    ] = None,
    version: OtherVersion = None,
    snapshot: Snapshot = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace README.md and croissant.json.")] = False,
    as_json: Json = False,
) -> None:
    """Write the card of a dataset: README.md for Hugging Face, and croissant.json."""
    from pipeline import export as exports

    with reserved_stdout(as_json):
        done = exports.write_card(dataset, out, version, _parse(snapshot), overwrite)
    _print(as_json, done)


COMMANDS: tuple[Callable[..., Any], ...] = (export, card)
"""In the order of ``tessera --help``."""


def _parse(snapshot: str | None) -> int | str | None:
    """Returns the number of a snapshot, or the name of a pin, which begins with a letter."""
    return int(snapshot) if snapshot is not None and snapshot.isdecimal() else snapshot


def _print(as_json: bool, done: Any) -> None:
    if as_json:
        print(json_text(done.document()))
    else:
        done.show(Console())
