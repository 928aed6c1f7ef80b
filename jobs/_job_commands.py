"""The commands for jobs on a Ray cluster, and the one that examines it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from jobs import _cluster
from jobs._console import print_result, reserved_stdout
from jobs._job_output import LogLines, followed, plain, print_json_only, print_text, print_to_stderr, say
from jobs._options import Deadline, Json, Overrides
from jobs.nightly import PartialExit, SummaryFile, Wait
from pipeline.core import durations
from pipeline.core.errors import ConfigError
from pipeline.core.terminal import Console, json_text, print_table

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

    from pipeline.config.models import PipelineConfig

Address = Annotated[
    str | None,
    typer.Option(metavar="URL", help="The cluster's dashboard, http://HEAD:8265; else RAY_API_SERVER_ADDRESS."),
]
Config = Annotated[str, typer.Argument(help="YAML file of the extraction.")]
Variables = Annotated[
    list[str] | None,
    typer.Option("--env", metavar="NAME=VALUE", help="A variable of the job and its workers; no secrets."),
]
Installed = Annotated[
    bool, typer.Option("--installed", help="Tessera is installed on the nodes: do not send its code.")
]
JobId = Annotated[str, typer.Argument(metavar="ID", help="Id of a job, as `tessera jobs list` shows it.")]

jobs = typer.Typer(no_args_is_help=True, help="Show, follow and stop jobs on a Ray cluster.")


def submit(
    config: Config,
    overrides: Overrides = None,
    address: Address = None,
    env: Variables = None,
    installed: Installed = False,
    retry_failures: Annotated[
        bool, typer.Option("--retry-failures", help="Also try again what failed for good.")
    ] = False,
    new_version: Annotated[
        bool, typer.Option("--new-version", help="Extract into a new version; unchanged columns are copied.")
    ] = False,
    is_night: Annotated[
        bool, typer.Option("--nightly", help="Run `tessera nightly` there; with its options below.")
    ] = False,
    deadline: Deadline = None,
    wait: Wait = None,
    partial_exit: PartialExit = 0,
    summary: SummaryFile = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Print the id of the job, and leave it running.")] = False,
    as_json: Json = False,
) -> None:
    """Run an extraction as a job on a Ray cluster, and follow it. The exit code is that of the run."""
    _check_submit(is_night, retry_failures or new_version, deadline, wait, partial_exit, summary, no_wait)
    if is_night:
        from jobs import _job_night

        command = [*_job_night.arguments(deadline, wait)]
    else:
        options = [*(["--retry-failures"] if retry_failures else []), *(["--new-version"] if new_version else [])]
        options += [] if deadline is None else ["--deadline", deadline]
        command = ["jobs.extract", "config.json", *options]
    submitted = partial(_submitted, config, address, env, installed, command)
    if is_night and not no_wait:
        _job_night.follow_night(config, summary, partial_exit, as_json, submitted, partial(_loaded, config, overrides))
    client, job = submitted(_loaded(config, overrides))
    if not no_wait:
        write = print_to_stderr if as_json else print_text
        code = followed(client, job, write, f"job {job} on {client.get_address()}")
        if as_json:
            print(json_text(plain(_cluster.details(client, job))))
        sys.exit(code)
    print(json_text(plain(_cluster.details(client, job))) if as_json else job)


def _check_submit(
    is_night: bool,
    is_run: bool,
    deadline: str | None,
    wait: str | None,
    partial_exit: int,
    summary: str | None,
    no_wait: bool,
) -> None:
    """Raises ``ConfigError`` for options that do not go together, and for what is no duration."""
    for name, value in (("--deadline", deadline), ("--wait", wait)):
        if value is not None:
            durations.seconds(value, name)
    if is_night and is_run:
        raise ConfigError("--nightly", "together with --retry-failures or --new-version", "an extraction of its own")
    if not is_night and (wait or partial_exit or summary):
        raise ConfigError("--wait, --partial-exit, --summary", "without --nightly", "only of a night")
    if is_night and no_wait and (partial_exit or summary):
        raise ConfigError("--no-wait", "together with --partial-exit or --summary", "the summary is in the dataset")


def doctor(
    config: Config,
    overrides: Overrides = None,
    address: Address = None,
    env: Variables = None,
    installed: Installed = False,
    engine: Annotated[
        Literal["local", "ray", "inline"] | None, typer.Option(help="Instead of engine.kind of the config.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a config and each machine that would compute for it; compute nothing. With an address: as a job there."""
    if address is not None and engine is not None:
        raise ConfigError("--engine", f"{engine!r} together with --address", "the engine on a cluster is ray")
    if address is not None or (engine is None and os.environ.get("RAY_API_SERVER_ADDRESS")):
        from jobs.extract import ON_THIS_CLUSTER

        command = ["jobs.cli", "doctor", "config.json", *(["--json"] if as_json else []), *ON_THIS_CLUSTER]
        client, job = _submitted(config, address, env, installed, command, _loaded(config, overrides))
        if not as_json:
            sys.exit(followed(client, job))
        with closing(LogLines(print_json_only)) as lines:
            code = followed(client, job, lines)
        sys.exit(code)
    from pipeline import config as configs

    loaded = configs.load(config, overrides)
    from pipeline import run
    from pipeline.engine.progress import quiet
    from pipeline.run import doctor as examination
    from pipeline.run import fork_server as fork_servers

    with reserved_stdout(as_json), fork_servers.started(loaded, engine) as fork_server:
        bound = run.prepare(loaded, False, fork_server, engine)
        with quiet() as terminal:
            found = examination.examine(bound, terminal)
    if as_json:
        print(json_text(found))
    else:
        examination.show(found, Console())
    examination.check(found)


COMMANDS: tuple[Callable[..., Any], ...] = (submit, doctor)


@jobs.command("list")
def list_jobs(address: Address = None, as_json: Json = False) -> None:
    """List the jobs that Tessera submitted, the newest first."""
    client = _cluster.connect(address)
    found = _cluster.ours(client)

    def show(console: Console) -> None:
        columns = ["id", "status", "command", "config", "output", "started", "seconds"]
        rows = [[str(plain(one)[name] or "–") for name in columns] for one in found]
        print_table(console, columns, rows, figures=["seconds"])

    print_result(as_json, lambda: [plain(one) for one in found], show)


@jobs.command()
def status(job: JobId, address: Address = None, as_json: Json = False) -> None:
    """Show one job."""
    found = plain(_cluster.details(_cluster.connect(address), job))

    def show(console: Console) -> None:
        for name, value in found.items():
            if value is not None:
                console.print(f"{name}: {value}", soft_wrap=True)

    print_result(as_json, lambda: found, show)


@jobs.command()
def logs(
    job: JobId,
    address: Address = None,
    follow: Annotated[bool, typer.Option("--follow", help="Until the job ends; the exit code is that of the run.")] = (
        False
    ),
    as_json: Json = False,
) -> None:
    """Print the log of a job."""
    client = _cluster.connect(address)
    _cluster.details(client, job)
    code = followed(client, job, print_to_stderr if as_json else print_text) if follow else 0
    if as_json or not follow:
        with _cluster.errors_of_dashboard("--address", client.get_address()):
            text = client.get_job_logs(job)
        print_text(json_text({"id": job, "log": text}) + "\n" if as_json else text)
    sys.exit(code)


@jobs.command()
def stop(job: JobId, address: Address = None, as_json: Json = False) -> None:
    """Stop a job. What it wrote stays; the same submission continues it."""
    found = plain(_cluster.stop(_cluster.connect(address), job))
    if as_json:
        print(json_text(found))
    else:
        say(f"job {job}: {found['status']}")


def _loaded(config: str, overrides: list[str] | None) -> PipelineConfig:
    from pipeline import config as configs

    return configs.load(config, overrides)


def _submitted(
    config: str,
    address: str | None,
    env: list[str] | None,
    installed: bool,
    command: list[str],
    loaded: PipelineConfig,
) -> tuple[JobSubmissionClient, str]:
    """Submits a command for a config; returns the client and the id of the job."""
    variables = _cluster.environment_of(env or [])
    client = _cluster.connect(address)
    return client, _cluster.submit(client, loaded, command, os.path.basename(config), variables, not installed)
