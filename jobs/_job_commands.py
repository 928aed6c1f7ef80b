"""The commands for jobs on a Ray cluster, and the one that examines it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from jobs._console import EXIT_INTERRUPTED, Stopped, print_result, reserved_stdout
from jobs._options import Json, Overrides
from pipeline.core.errors import TesseraError
from pipeline.core.terminal import Console, json_text, print_table

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

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
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Print the id of the job, and leave it running.")] = False,
) -> None:
    """Run an extraction as a job on a Ray cluster, and follow it. The exit code is that of the run."""
    options = [*(["--retry-failures"] if retry_failures else []), *(["--new-version"] if new_version else [])]
    client, job = _submitted(config, overrides, address, env, installed, ["jobs.extract", "config.json", *options])
    if no_wait:
        print(job)
        return
    _say(f"job {job} on {client.get_address()}")
    sys.exit(_followed(client, job))


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
    """Check a config and each machine that would compute for it; compute nothing. With --address: as a job there."""
    if address is not None:
        from jobs.extract import ON_THIS_CLUSTER

        command = ["jobs.cli", "doctor", "config.json", *(["--json"] if as_json else []), *ON_THIS_CLUSTER]
        client, job = _submitted(config, overrides, address, env, installed, command)
        sys.exit(_followed(client, job))
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
    from jobs import _cluster

    client = _cluster.connect(address)
    found = _cluster.ours(client)

    def show(console: Console) -> None:
        columns = ["id", "status", "config", "output", "started", "seconds"]
        rows = [[str(_plain(one)[name] or "–") for name in columns] for one in found]
        print_table(console, columns, rows, figures=["seconds"])

    print_result(as_json, lambda: [_plain(one) for one in found], show)


@jobs.command()
def status(job: JobId, address: Address = None, as_json: Json = False) -> None:
    """Show one job."""
    from jobs import _cluster

    found = _plain(_cluster.details(_cluster.connect(address), job))

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
) -> None:
    """Print the log of a job."""
    from jobs import _cluster

    client = _cluster.connect(address)
    details = _cluster.details(client, job)
    if follow:
        sys.exit(_followed(client, job))
    sys.stdout.write(client.get_job_logs(job) if details.submission_id else "")


@jobs.command()
def stop(job: JobId, address: Address = None) -> None:
    """Stop a job. What it wrote stays; the same submission continues it."""
    from jobs import _cluster

    found = _cluster.stop(_cluster.connect(address), job)
    _say(f"job {job}: {_plain(found)['status']}")


def _submitted(
    config: str,
    overrides: list[str] | None,
    address: str | None,
    env: list[str] | None,
    installed: bool,
    command: list[str],
) -> tuple[JobSubmissionClient, str]:
    """Submits a command for a config; returns the client and the id of the job."""
    from jobs import _cluster
    from pipeline import config as configs

    loaded = configs.load(config, overrides)
    variables = _cluster.environment_of(env or [])
    client = _cluster.connect(address)
    return client, _cluster.submit(client, loaded, command, os.path.basename(config), variables, not installed)


def _followed(client: JobSubmissionClient, job: str) -> int:
    """Prints the log of a job until it ends, and returns the exit code of its program."""
    from jobs import _cluster

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    try:
        details = _cluster.follow(client, job, write)
    except Stopped:
        return _left_or_stopped(client, job)
    return _exit_code(details)


def _left_or_stopped(client: JobSubmissionClient, job: str) -> int:
    """Asks after Ctrl-C whether to stop the job. Without a terminal it goes on."""
    from jobs import _cluster

    leave = f"job {job} goes on: `tessera jobs logs {job} --follow`, `tessera jobs stop {job}`"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        _say(leave)
        return EXIT_INTERRUPTED
    try:
        print(f"\nstop job {job} (s), or leave it running (l)? ", end="", file=sys.stderr, flush=True)
        stops = sys.stdin.readline().strip().lower() in ("s", "stop")
    except Stopped:
        stops = False
    if not stops:
        _say(leave)
        return 0
    _cluster.stop(client, job)
    _say(f"job {job} has stopped; the same submission continues it")
    return EXIT_INTERRUPTED


def _exit_code(details: JobDetails) -> int:
    """Returns the exit code of a job's program; that of an interrupted run if it has none."""
    job, code = details.submission_id, details.driver_exit_code
    if details.status.value == "SUCCEEDED":
        return 0
    if details.status.value == "STOPPED":
        _say(f"job {job} was stopped; the same submission continues it")
        return EXIT_INTERRUPTED
    if code is None or code < 0 or code > 127:
        message = (details.message or "no message").splitlines()[0]
        raise TesseraError(f"job {job} has failed: {message}")
    return int(code)


def _plain(details: JobDetails) -> dict[str, Any]:
    """Returns what users see of a job."""
    metadata, started, ended = details.metadata or {}, details.start_time, details.end_time
    seconds = None if started is None else round((ended or time.time() * 1000) / 1000 - started / 1000)
    message = (details.message or "").splitlines()
    return {
        "id": details.submission_id,
        "status": details.status.value.lower(),
        "config": metadata.get("config"),
        "output": metadata.get("output"),
        "started": None if started is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(started / 1000)),
        "seconds": seconds,
        "exit_code": details.driver_exit_code,
        "ray_job": details.job_id,
        "message": message[0] if message else None,
    }


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
