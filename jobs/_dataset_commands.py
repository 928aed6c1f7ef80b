"""The commands that show and maintain a dataset."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs._console import print_result, reserved_stdout
from jobs._options import Dataset, Json, OtherVersion
from pipeline.core.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.dataset import maintenance


def inspect(
    dataset: Dataset,
    rows: Annotated[int, typer.Option(help="Sample rows to show.", min=0)] = 5,
    columns: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME,NAME", help="Columns of the sample rows; may be repeated. Only these are read."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a dataset: features, spaces, rows, failures by kind, sizes, sample rows."""
    from pipeline.dataset import describe

    print_result(
        as_json,
        lambda: describe.document(dataset, rows, columns or ()),
        lambda console: describe.show(dataset, rows, console, columns or ()),
    )


def snapshots(
    dataset: Dataset,
    version: OtherVersion = None,
    pin: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name a snapshot, which vacuum then keeps; the newest, or --at.")
    ] = None,
    at: Annotated[int | None, typer.Option(metavar="N", help="Number of the snapshot to pin.")] = None,
    until: Annotated[
        str | None, typer.Option(metavar="DATE", help="End of the pin: 2027-01-31, or with a time. None: for ever.")
    ] = None,
    unpin: Annotated[str | None, typer.Option(metavar="NAME", help="Remove a pin.")] = None,
    as_json: Json = False,
) -> None:
    """List the moments that can be read or rolled back to, or pin one for a training that reads it."""
    from pipeline.dataset import describe_versions, maintenance

    if pin is None and (at is not None or until is not None):
        raise ConfigError("--at" if at is not None else "--until", "without --pin", "give --pin NAME")
    if pin is not None and unpin is not None:
        raise ConfigError("--unpin", "together with --pin", "one of them")
    if pin is not None:
        maintenance.pin(dataset, pin, at, until, version)
    if unpin is not None:
        maintenance.unpin(dataset, unpin, version)

    print_result(
        as_json,
        lambda: describe_versions.snapshots_document(dataset, version),
        lambda console: describe_versions.show_snapshots(dataset, version, console),
    )


def versions(
    dataset: Dataset,
    use: Annotated[str | None, typer.Option(help="Make this one the current version.")] = None,
    as_json: Json = False,
) -> None:
    """List the versions of a dataset, or choose the current one."""
    from pipeline.dataset import describe_versions, maintenance

    if use is not None:
        maintenance.use(dataset, use)
    print_result(
        as_json,
        lambda: describe_versions.versions_document(dataset),
        lambda console: describe_versions.show_versions(dataset, console),
    )


def compact(
    dataset: Dataset,
    version: OtherVersion = None,
    shard_bytes: Annotated[int, typer.Option(help="A shard is closed once it holds this much.")] = 256 << 20,
    as_json: Json = False,
) -> None:
    """Merge small shards and apply deletions, so that plain Parquet readers see every row once."""
    from pipeline.dataset import maintenance

    with reserved_stdout(as_json):
        done = [maintenance.compact(dataset, version, shard_bytes)]
    _print_done("rewrote", dataset, done, as_json)


def rollback(
    dataset: Dataset,
    to: Annotated[int, typer.Option(help="Number of the snapshot.")],
    version: OtherVersion = None,
    as_json: Json = False,
) -> None:
    """Make a dataset what it was at an old snapshot; the next run brings it up to date again."""
    from pipeline.dataset import maintenance

    with reserved_stdout(as_json):
        done = [maintenance.rollback(dataset, to, version)]
    _print_done("rolled back", dataset, done, as_json)


def forget(
    dataset: Dataset,
    sample_ids: Annotated[list[str], typer.Argument(metavar="SAMPLE_ID...", help="What must not come back.")],
    as_json: Json = False,
) -> None:
    """Remove samples from every version, for good; run vacuum to remove them from old snapshots too."""
    from pipeline.dataset import maintenance

    with reserved_stdout(as_json):
        done = maintenance.forget(dataset, sample_ids)
    _print_done("forgot", dataset, done, as_json)


def vacuum(
    dataset: Dataset,
    older_than: Annotated[str, typer.Option(help="Age of snapshots: 7d, 12h, 30m, 45s, 2w.")] = "7d",
    version: Annotated[str | None, typer.Option(help="Only this version.")] = None,
    as_json: Json = False,
) -> None:
    """Delete old snapshots and what only they need; and whatever holds forgotten samples."""
    from pipeline.dataset import maintenance

    with reserved_stdout(as_json):
        done = maintenance.vacuum(dataset, maintenance.seconds(older_than), version)
    _print_done("vacuumed", dataset, done, as_json)


def discard(
    dataset: Dataset,
    version: Annotated[str, typer.Argument(help="A version that no run has committed.")],
    as_json: Json = False,
) -> None:
    """Remove a version whose first run was killed and will not be continued."""
    from pipeline.dataset import discard as discarding

    with reserved_stdout(as_json):
        done = [discarding.discard(dataset, version)]
    _print_done("discarded", dataset, done, as_json)


COMMANDS: tuple[Callable[..., Any], ...] = (inspect, snapshots, versions, compact, rollback, forget, vacuum, discard)
"""In the order of ``tessera --help``."""


def _print_done(what: str, dataset: str, done: list[maintenance.MaintenanceResult], as_json: bool) -> None:
    """Prints what a command changed, version by version."""
    from pipeline.dataset import describe_versions

    print_result(
        as_json,
        lambda: describe_versions.done_document(what, dataset, done),
        lambda console: describe_versions.show_done(what, done, console),
    )
