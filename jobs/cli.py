"""The `tessera` command: parses arguments, loads a config, calls the package."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import Annotated, Literal

import typer

from jobs import _dataset_commands as dataset_commands
from jobs import _export_commands as export_commands
from jobs import _job_commands as job_commands
from jobs._console import reserved_stdout, run_app
from jobs._options import Deadline, Json, Overrides
from jobs.nightly import nightly
from pipeline.core import durations
from pipeline.core.errors import BudgetExceeded, ConfigError
from pipeline.core.terminal import Console, count, json_text, say

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Media in; aligned embeddings and token sequences in Parquet out.",
)


@app.command()
def extract(
    config: Annotated[str, typer.Argument(help="YAML file of the extraction.")],
    overrides: Overrides = None,
    plan: Annotated[bool, typer.Option("--plan", help="Check, list and compare only; compute nothing.")] = False,
    retry_failures: Annotated[
        bool, typer.Option("--retry-failures", help="Also try again what failed for good.")
    ] = False,
    new_version: Annotated[
        bool,
        typer.Option("--new-version", help="Extract into a new version; columns that do not change are copied."),
    ] = False,
    engine: Annotated[
        Literal["local", "ray", "inline"] | None,
        typer.Option(help="What runs the pipeline, instead of engine.kind of the config."),
    ] = None,
    deadline: Deadline = None,
    as_json: Json = False,
) -> None:
    """Bring a dataset up to date with its corpus (or, with --plan, only say what that takes)."""
    import psutil

    from pipeline import config as configs

    started = psutil.Process().create_time()
    until = None if deadline is None else started + durations.seconds(deadline, "--deadline")
    loaded = configs.load(config, overrides)
    from pipeline.run import fork_server as fork_servers

    exceeded = None
    with (
        reserved_stdout(as_json),
        nullcontext() if plan else fork_servers.started(loaded, engine) as fork_server,
    ):
        from pipeline import run
        from pipeline.run import report

        bound = run.prepare(loaded, new_version, fork_server, engine)
        if plan:
            planned = run.plan(bound, retry_failures)
            spec = run.planned_spec(bound, planned)
            machine = run.planned_machine(bound, spec)
        else:
            try:
                done = run.extract(bound, retry_failures=retry_failures, started=started, until=until)
            except BudgetExceeded as error:
                done, exceeded = error.report, error
    if as_json:
        print(json_text(report.plan_document(bound, planned, spec, machine) if plan else done))
    elif plan:
        report.show_plan(bound, planned, spec, machine, Console())
    else:
        report.show(done, console := Console())
        if exceeded is None:
            console.print(f"dataset: {loaded.output.path}", soft_wrap=True)
    if exceeded is not None:
        raise exceeded


@app.command()
def benchmark(
    config: Annotated[str, typer.Argument(help="YAML file of an extraction; nothing is written to its output.")],
    overrides: Overrides = None,
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
        raise ConfigError("--picture", f"together with --stage {stage}", "only of whole runs")
    loaded = configs.load(config, overrides)
    with reserved_stdout(as_json), Console(stderr=as_json).waiting() as status:
        result = benchmark.measure(loaded, rows, against, stage, partial(say, status))
    if as_json:
        print(json_text(result))
    else:
        show.show(result, Console())
    if output is not None:
        storage.publish(storage.absolute(output), json.dumps(result, indent=1).encode())
    if picture is not None:
        storage.publish(storage.absolute(picture), pictures.draw(result).encode())


app.command()(nightly)
for _command in (*job_commands.COMMANDS, *dataset_commands.COMMANDS, *export_commands.COMMANDS):
    app.command()(_command)
app.add_typer(job_commands.jobs, name="jobs")


@app.command()
def models(folder: Annotated[str, typer.Argument(help="Where to write them.")], as_json: Json = False) -> None:
    """Write the small demo checkpoints: true architectures, seeded weights."""
    from pipeline.demo import models as demo

    with reserved_stdout(as_json):
        written = demo.build(folder)
    print(json_text({"folder": folder, "checkpoints": written}) if as_json else "\n".join(written))


@app.command()
def corpus(folder: Annotated[str, typer.Argument(help="Where to write it.")], as_json: Json = False) -> None:
    """Draw and synthesise the demo corpus."""
    from pipeline.demo import corpus as demo

    with reserved_stdout(as_json):
        kinds = demo.build(folder)
    samples = kinds.pop("samples")
    if as_json:
        print(json_text({"folder": folder, "samples": samples, "samples_by_kind": kinds}))
    else:
        print(f"{count(samples, 'sample')}: {', '.join(f'{name} {number}' for name, number in kinds.items())}")


def main() -> None:
    """Console entry: exit codes 0 done, 2 config, 3 failure budget, 4 interrupted or lost resources."""
    run_app(app)


if __name__ == "__main__":
    main()
