"""The `tessera` command. Entry points only: parse, load a config, call the package."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pipeline.core.errors import BudgetExceeded, ConfigError, TesseraError, one_line
from pipeline.core.terminal import Console, count, escaped_streams, json_text, say, stdout_to_stderr
from pipeline.dataset import describe_versions
from pipeline.dataset import discard as discarding

if TYPE_CHECKING:
    from pipeline.dataset import maintenance

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, and nothing else, to standard output.")]
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
    engine: Annotated[
        Literal["ray", "inline"],
        typer.Option(help="What runs the pipeline; inline: one block after another in this process, for debugging."),
    ] = "ray",
    as_json: Json = False,
) -> None:
    """Bring a dataset up to date with its corpus (or, with --plan, only say what that takes)."""
    import psutil

    from pipeline import config as configs

    started = psutil.Process().create_time()
    loaded = configs.load(config, overrides)
    from pipeline.run import fork_server as templates

    exceeded = None
    with (
        _reserved_stdout(as_json),
        nullcontext() if plan or engine == "inline" else templates.started(loaded) as template,
    ):
        from pipeline import run
        from pipeline.run import report

        prepared = run.prepare(loaded, new_version, template, engine)
        if plan:
            planned, spec = run.plan(prepared, retry_failures), run.planned_spec(prepared)
        else:
            try:
                done = run.extract(prepared, retry_failures=retry_failures, started=started, engine_name=engine)
            except BudgetExceeded as error:
                done, exceeded = error.report, error
    if as_json:
        print(json_text(report.plan_document(prepared, planned, spec) if plan else done))
    elif plan:
        report.show_plan(prepared, planned, spec, Console())
    else:
        report.show(done, console := Console())
        if exceeded is None:
            console.print(f"dataset: {loaded.output.path}", soft_wrap=True)
    if exceeded is not None:
        raise exceeded


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
    output: Annotated[str | None, typer.Option(help="JSON file for the result.")] = None,
    picture: Annotated[str | None, typer.Option(help="SVG file: the larger run's cores over time.")] = None,
    as_json: Json = False,
) -> None:
    """Measure how fast a config goes on this machine, and what holds it back."""
    import json

    from pipeline import benchmark, storage
    from pipeline import config as configs
    from pipeline.benchmark import picture as pictures
    from pipeline.benchmark import show

    if picture is not None and stage != "all":
        raise ConfigError("--picture", f"beside --stage {stage}", "only of whole runs")
    loaded = configs.load(config, overrides)
    with _reserved_stdout(as_json), Console(stderr=as_json).waiting() as status:
        result = benchmark.measure(loaded, rows, against, stage, partial(say, status))
    if as_json:
        print(json_text(result))
    else:
        show.show(result, Console())
    if output is not None:
        storage.publish(storage.absolute(output), json.dumps(result, indent=1).encode())
    if picture is not None:
        storage.publish(storage.absolute(picture), pictures.draw(result).encode())


@app.command()
def inspect(
    dataset: Annotated[str, typer.Argument(help="Folder or URL of a dataset.")],
    rows: Annotated[int, typer.Option(help="Sample rows to show.", min=0)] = 5,
    columns: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME,NAME", help="Columns of the sample rows; may be repeated. Only these are read."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a dataset: features, spaces, rows, failures by kind, sizes, sample rows."""
    from pipeline.dataset import describe

    _print(
        as_json,
        lambda: describe.document(dataset, rows, columns or ()),
        lambda console: describe.show(dataset, rows, console, columns or ()),
    )


@app.command()
def snapshots(
    dataset: Annotated[str, typer.Argument(help="Folder or URL of a dataset.")],
    version: Annotated[str | None, typer.Option(help="Another version than the current one.")] = None,
    as_json: Json = False,
) -> None:
    """List the moments that can be read or rolled back to."""

    _print(
        as_json,
        lambda: describe_versions.snapshots_document(dataset, version),
        lambda console: describe_versions.show_snapshots(dataset, version, console),
    )


@app.command()
def versions(
    dataset: Annotated[str, typer.Argument(help="Folder or URL of a dataset.")],
    use: Annotated[str | None, typer.Option(help="Make this one the current version.")] = None,
    as_json: Json = False,
) -> None:
    """List the versions of a dataset, or choose the current one."""
    from pipeline.dataset import maintenance

    if use is not None:
        maintenance.use(dataset, use)
    _print(
        as_json,
        lambda: describe_versions.versions_document(dataset),
        lambda console: describe_versions.show_versions(dataset, console),
    )


@app.command()
def compact(
    dataset: Annotated[str, typer.Argument(help="Folder or URL of a dataset.")],
    version: Annotated[str | None, typer.Option(help="Another version than the current one.")] = None,
    shard_bytes: Annotated[int, typer.Option(help="A shard is closed once it holds this much.")] = 256 << 20,
    as_json: Json = False,
) -> None:
    """Merge small shards and apply deletions, so that plain Parquet readers see every row once."""
    from pipeline.dataset import maintenance

    with _reserved_stdout(as_json):
        done = [maintenance.compact(dataset, version, shard_bytes)]
    _print_done("rewrote", dataset, done, as_json)


@app.command()
def rollback(
    dataset: Annotated[str, typer.Argument(help="Folder or URL of a dataset.")],
    to: Annotated[int, typer.Option(help="Number of the snapshot.")],
    version: Annotated[str | None, typer.Option(help="Another version than the current one.")] = None,
    as_json: Json = False,
) -> None:
    """Make a dataset what it was at an old snapshot; the next run brings it up to date again."""
    from pipeline.dataset import maintenance

    with _reserved_stdout(as_json):
        done = [maintenance.rollback(dataset, to, version)]
    _print_done("rolled back", dataset, done, as_json)


@app.command()
def forget(
    dataset: Annotated[str, typer.Argument(help="Folder or URL of a dataset.")],
    sample_ids: Annotated[list[str], typer.Argument(metavar="SAMPLE_ID...", help="What must not come back.")],
    as_json: Json = False,
) -> None:
    """Remove samples from every version, for good; run vacuum to remove them from old snapshots too."""
    from pipeline.dataset import maintenance

    with _reserved_stdout(as_json):
        done = maintenance.forget(dataset, sample_ids)
    _print_done("forgot", dataset, done, as_json)


@app.command()
def vacuum(
    dataset: Annotated[str, typer.Argument(help="Folder or URL of a dataset.")],
    older_than: Annotated[str, typer.Option(help="Age of snapshots: 7d, 12h, 30m, 45s, 2w.")] = "7d",
    version: Annotated[str | None, typer.Option(help="Only this version.")] = None,
    as_json: Json = False,
) -> None:
    """Delete old snapshots and what only they need; and whatever holds forgotten samples."""
    from pipeline.dataset import maintenance

    with _reserved_stdout(as_json):
        done = maintenance.vacuum(dataset, maintenance.seconds(older_than), version)
    _print_done("vacuumed", dataset, done, as_json)


@app.command()
def discard(
    dataset: Annotated[str, typer.Argument(help="Folder or URL of a dataset.")],
    version: Annotated[str, typer.Argument(help="A version that no run has committed.")],
    as_json: Json = False,
) -> None:
    """Remove a version whose first run was killed and will not be continued."""

    with _reserved_stdout(as_json):
        done = [discarding.discard(dataset, version)]
    _print_done("discarded", dataset, done, as_json)


@app.command()
def models(folder: Annotated[str, typer.Argument(help="Where to write them.")], as_json: Json = False) -> None:
    """Write the small demo checkpoints: true architectures, seeded weights."""
    from pipeline.demo import models as demo

    with _reserved_stdout(as_json):
        written = demo.build(folder)
    print(json_text({"folder": folder, "checkpoints": written}) if as_json else "\n".join(written))


@app.command()
def corpus(folder: Annotated[str, typer.Argument(help="Where to write it.")], as_json: Json = False) -> None:
    """Draw and synthesise the demo corpus."""
    from pipeline.demo import corpus as demo

    with _reserved_stdout(as_json):
        kinds = demo.build(folder)
    samples = kinds.pop("samples")
    if as_json:
        print(json_text({"folder": folder, "samples": samples, "samples_by_kind": kinds}))
    else:
        print(f"{count(samples, 'sample')}: {', '.join(f'{name} {number}' for name, number in kinds.items())}")


def _reserved_stdout(as_json: bool) -> AbstractContextManager[None]:
    """Around the work of a command: with --json, only the document, which follows, goes to standard output."""
    return stdout_to_stderr() if as_json else nullcontext()


def _print(as_json: bool, document: Callable[[], Any], show: Callable[[Console], None]) -> None:
    """Prints what a command found: as one JSON document, or for a person."""
    if not as_json:
        show(Console())
        return
    with _reserved_stdout(as_json):
        found = document()
    print(json_text(found))


def _print_done(what: str, dataset: str, done: list[maintenance.MaintenanceResult], as_json: bool) -> None:

    _print(
        as_json,
        lambda: describe_versions.done_document(what, dataset, done),
        lambda console: describe_versions.show_done(what, done, console),
    )


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
