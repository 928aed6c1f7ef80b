"""The `tessera` command. Entry points only: parse, load a config, call the package."""

from __future__ import annotations

import signal
import sys
from contextlib import nullcontext
from functools import partial
from typing import Annotated, Literal

import typer

from pipeline.errors import BudgetExceeded, ConfigError, TesseraError, one_line
from pipeline.terminal import Console, escaped_streams, say

EXIT_CONFIG, EXIT_BUDGET, EXIT_INTERRUPTED = 2, 3, 4

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Media in; aligned embeddings and token sequences in Parquet out.",
)


@app.command()
def extract(
    config: Annotated[str, typer.Argument(help="YAML file of the extraction.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a value: dotted.key=value.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Check, list and compare only; compute nothing.")] = False,
    retry_failures: Annotated[
        bool, typer.Option("--retry-failures", help="Also try again what failed for good.")
    ] = False,
    new_version: Annotated[
        bool,
        typer.Option(
            "--new-version", help="Extract beside the current version; columns that do not change are copied."
        ),
    ] = False,
) -> None:
    """Bring a dataset up to date with its corpus (or, with --plan, only say what that takes)."""
    from pipeline import config as configs

    loaded = configs.load(config, overrides)
    from pipeline import template as templates

    console = Console()
    with nullcontext() if plan else templates.started(loaded) as template:
        from pipeline import report, run

        prepared = run.prepare(loaded, new_version, template)
        if plan:
            report.show_plan(prepared, run.preview(prepared, retry_failures), console)
            return
        try:
            report.show(run.extract(prepared, retry_failures=retry_failures), console)
        except BudgetExceeded as error:
            report.show(error.report, console)
            raise
    console.print(f"dataset: {loaded.output.path}", soft_wrap=True)


@app.command()
def benchmark(
    config: Annotated[str, typer.Argument(help="YAML file of an extraction; nothing is written to its output.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a value: dotted.key=value.")
    ] = None,
    rows: Annotated[
        int | None, typer.Option(help="Rows of the smaller of two runs; none: as many as take 20 s.", min=1)
    ] = None,
    against: Annotated[
        Literal["reference"] | None, typer.Option(help="Measure transformers' own processors and models too.")
    ] = None,
    stage: Annotated[
        Literal["all", "encode"], typer.Option(help="encode: the encoding stage alone, without Ray.")
    ] = "all",
    json_file: Annotated[str | None, typer.Option("--json", help="File for the result.")] = None,
    picture: Annotated[str | None, typer.Option(help="SVG file: the larger run's cores over time.")] = None,
) -> None:
    """Measure how fast a config goes on this machine, and what holds it back."""
    import json

    from pipeline import benchmark, storage
    from pipeline import config as configs
    from pipeline.benchmark import picture as pictures
    from pipeline.benchmark import show

    if picture is not None and stage != "all":
        raise ConfigError("--picture", f"beside --stage {stage}", "only of whole runs")
    loaded, console = configs.load(config, overrides), Console()
    with console.waiting() as status:
        result = benchmark.measure(loaded, rows, against, stage, partial(say, status))
    show.show(result, console)
    if json_file is not None:
        storage.publish(storage.absolute(json_file), json.dumps(result, indent=1).encode())
    if picture is not None:
        storage.publish(storage.absolute(picture), pictures.draw(result).encode())


@app.command()
def inspect(
    dataset: Annotated[str, typer.Argument(help="Folder or URL of a dataset.")],
    rows: Annotated[int, typer.Option(help="Sample rows to show.", min=0)] = 5,
) -> None:
    """Show a dataset: features, spaces, rows, failures by kind, sizes, sample rows."""
    from pipeline import inspection

    inspection.show(dataset, rows, Console())


@app.command()
def snapshots(
    dataset: Annotated[str, typer.Argument(help="Folder or URL of a dataset.")],
    version: Annotated[str | None, typer.Option(help="Another version than the current one.")] = None,
) -> None:
    """List the moments that can be read or rolled back to."""
    from pipeline import inspection

    inspection.show_snapshots(dataset, version, Console())


@app.command()
def versions(
    dataset: Annotated[str, typer.Argument(help="Folder or URL of a dataset.")],
    use: Annotated[str | None, typer.Option(help="Make this one the current version.")] = None,
) -> None:
    """List the versions of a dataset, or choose the current one."""
    from pipeline import inspection, upkeep

    if use is not None:
        upkeep.use(dataset, use)
    inspection.show_versions(dataset, Console())


@app.command()
def compact(
    dataset: Annotated[str, typer.Argument(help="Folder or URL of a dataset.")],
    version: Annotated[str | None, typer.Option(help="Another version than the current one.")] = None,
    shard_bytes: Annotated[int, typer.Option(help="A shard is closed once it holds this much.")] = 256 << 20,
) -> None:
    """Merge small shards and apply deletions, so that plain Parquet readers see every row once."""
    from pipeline import inspection, upkeep

    inspection.show_done("rewrote", [upkeep.compact(dataset, version, shard_bytes)], Console())


@app.command()
def rollback(
    dataset: Annotated[str, typer.Argument(help="Folder or URL of a dataset.")],
    to: Annotated[int, typer.Option(help="Number of the snapshot.")],
    version: Annotated[str | None, typer.Option(help="Another version than the current one.")] = None,
) -> None:
    """Make a dataset what it was at an old snapshot; the next run brings it up to date again."""
    from pipeline import inspection, upkeep

    inspection.show_done("rolled back", [upkeep.rollback(dataset, to, version)], Console())


@app.command()
def forget(
    dataset: Annotated[str, typer.Argument(help="Folder or URL of a dataset.")],
    sample_ids: Annotated[list[str], typer.Argument(metavar="SAMPLE_ID...", help="What must not come back.")],
) -> None:
    """Remove samples from every version, for good; run vacuum to remove them from old snapshots too."""
    from pipeline import inspection, upkeep

    inspection.show_done("forgot", upkeep.forget(dataset, sample_ids), Console())


@app.command()
def vacuum(
    dataset: Annotated[str, typer.Argument(help="Folder or URL of a dataset.")],
    older_than: Annotated[str, typer.Option(help="Age of snapshots: 7d, 12h, 30m, 45s, 2w.")] = "7d",
    version: Annotated[str | None, typer.Option(help="Only this version.")] = None,
) -> None:
    """Delete old snapshots and what only they need; and whatever holds forgotten samples."""
    from pipeline import inspection, upkeep

    inspection.show_done("vacuumed", upkeep.vacuum(dataset, upkeep.seconds(older_than), version), Console())


@app.command()
def models(folder: Annotated[str, typer.Argument(help="Where to write them.")]) -> None:
    """Write the small demo checkpoints: true architectures, seeded weights."""
    from pipeline.demo import models as demo

    for name in demo.build(folder):
        print(name)


@app.command()
def corpus(folder: Annotated[str, typer.Argument(help="Where to write it.")]) -> None:
    """Draw and synthesise the demo corpus."""
    from pipeline.demo import corpus as demo

    counts = demo.build(folder)
    print(", ".join(f"{count} {name}" for name, count in counts.items()))


def main() -> None:
    """Console entry: exit codes 0 done, 2 config, 3 failure budget, 4 interrupted or lost resources."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    with escaped_streams():
        _run()


def _run() -> None:
    try:
        sys.exit(app(prog_name="tessera", standalone_mode=False) or 0)
    except ConfigError as error:
        _end(str(error), EXIT_CONFIG)
    except BudgetExceeded as error:
        _end(str(error), EXIT_BUDGET)
    except TesseraError as error:
        _end(str(error), EXIT_INTERRUPTED)
    except _Stopped:
        _end("interrupted", EXIT_INTERRUPTED)
    except SystemExit as stop:
        if stop.code == signal.SIGTERM:  # Ray's own handler, while it starts
            _end("interrupted", EXIT_INTERRUPTED)
        raise
    except typer.Abort:
        _end("aborted", 1)
    except Exception as error:  # of the command line itself, in whatever library typer has it
        words = getattr(error, "format_message", None)
        if words is None:
            raise
        if type(error).__name__ == "NoArgsIsHelpError":  # it is shown already
            sys.exit(EXIT_CONFIG)
        _end(f"{one_line(words())} (tessera --help lists what there is)", getattr(error, "exit_code", EXIT_CONFIG))


class _Stopped(BaseException):
    """SIGTERM or Ctrl-C: nothing on the way up may take it for an error, or for a signal of its own."""


def _stop(*_: object) -> None:
    raise _Stopped


def _end(message: str, code: int) -> None:
    print(f"tessera: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
