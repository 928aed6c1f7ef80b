"""What users see of a job: its log, its state, and the exit code of its program."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jobs import _cluster, _job_log
from jobs._console import EXIT_INTERRUPTED, Stopped
from pipeline.core.errors import TesseraError

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient


def print_text(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def print_to_stderr(text: str) -> None:
    print(text, end="", file=sys.stderr, flush=True)


class LogLines:
    """Passes a log on line by line. It comes in pieces, which may end within a line.

    Args:
        take: called with each line, without its end.
    """

    def __init__(self, take: Callable[[str], object]) -> None:
        self.take, self.rest = take, ""

    def __call__(self, text: str) -> None:
        *lines, self.rest = f"{self.rest}{text}".split("\n")
        for line in lines:
            self.take(line)

    def close(self) -> None:
        """Passes a last line on that has no end."""
        if self.rest:
            self("\n")


def print_json_only(line: str) -> None:
    """Prints a line that is a JSON document to standard output, and any other to standard error."""
    print(line, flush=True, file=sys.stdout if line.startswith("{") else sys.stderr)


def followed(
    client: JobSubmissionClient, job: str, write: Callable[[str], None] = print_text, first: str | None = None
) -> int:
    """Writes the log of a job until it ends, and returns the exit code of its program.

    Args:
        first: printed to standard error before the log.
    """
    try:
        if first is not None:
            say(first)
        details = _job_log.follow(client, job, write)
    except Stopped:
        return _left_or_stopped(client, job)
    return _exit_code(details)


def _left_or_stopped(client: JobSubmissionClient, job: str) -> int:
    """Asks after Ctrl-C whether to stop the job. Without a terminal it goes on."""
    leave = f"job {job} goes on: `tessera jobs logs {job} --follow`, `tessera jobs stop {job}`"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        say(leave)
        return EXIT_INTERRUPTED
    try:
        print(f"\nstop job {job} (s), or leave it running (l)? ", end="", file=sys.stderr, flush=True)
        stops = sys.stdin.readline().strip().lower() in ("s", "stop")
    except Stopped:
        stops = False
    if not stops:
        say(leave)
        return 0
    _cluster.stop(client, job)
    say(f"job {job} has stopped; the same submission continues it")
    return EXIT_INTERRUPTED


def _exit_code(details: JobDetails) -> int:
    """Returns the exit code of a job's program; that of an interrupted run if it has none."""
    job, code = details.submission_id, details.driver_exit_code
    if details.status.value == "SUCCEEDED":
        return 0
    if details.status.value == "STOPPED":
        say(f"job {job} was stopped; the same submission continues it")
        return EXIT_INTERRUPTED
    if code in (126, 127):
        words = "there is no `python` on the PATH with which the cluster's head runs Ray"
        raise TesseraError(f"job {job} has not started: {words}, see docs/cluster.md")
    if code is None or not 0 < code <= EXIT_INTERRUPTED:
        message = (details.message or "no message").splitlines()[0]
        raise TesseraError(f"job {job} has failed: {message}")
    return int(code)


def plain(details: JobDetails) -> dict[str, Any]:
    """Returns what users see of a job."""
    metadata, started, ended = details.metadata or {}, details.start_time, details.end_time
    seconds = None if started is None else round((ended or time.time() * 1000) / 1000 - started / 1000)
    lines = (details.message or "").splitlines()
    errors = [line for line in lines if line.startswith("tessera: ")]
    return {
        "id": details.submission_id,
        "status": details.status.value.lower(),
        "command": {"jobs.extract": "extract", "jobs.nightly": "nightly", "jobs.cli": "doctor"}.get(
            metadata.get("program", "")
        ),
        "config": metadata.get("config"),
        "output": metadata.get("output"),
        "started": None if started is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(started / 1000)),
        "seconds": seconds,
        "exit_code": details.driver_exit_code,
        "ray_job": details.job_id,
        "message": (errors[-1:] or lines[:1] or [None])[0],
    }


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
