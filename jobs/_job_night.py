"""A night as a job on a Ray cluster: submits it, follows it, and writes its summary on this machine."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from jobs._job_output import LogLines, followed, print_text, print_to_stderr
from jobs.nightly import end_night
from pipeline import nightly as nights
from pipeline.core.errors import TesseraError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

    from pipeline.config.models import PipelineConfig

_BEGINS = '{"contract": '
"""Begins the line of a job's log with the summary."""


class _SummaryFinder:
    """Writes the lines of a job's log except its summary, which it keeps."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.write = write
        self.summary: dict[str, Any] | None = None

    def __call__(self, line: str) -> None:
        found = _summary(line)
        if found is None:
            self.write(f"{line}\n")
        else:
            self.summary = found


def _summary(line: str) -> dict[str, Any] | None:
    """Returns the summary that a line of a log is. None: it is something else."""
    if not line.startswith(_BEGINS):
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    has_keys = isinstance(found, dict) and {"night", "status", "cause", "exit_code"} <= set(found)
    return found if has_keys and isinstance(found["exit_code"], int) else None


def follow_night(
    config: str,
    summary: str | None,
    partial_exit: int,
    as_json: bool,
    submit: Callable[[PipelineConfig], tuple[JobSubmissionClient, str]],
    load: Callable[[], PipelineConfig],
) -> None:
    """Submits a night, follows it to its end, and writes its summary for every outcome. Ends the program.

    Args:
        config: path of the config.
        summary: file for the summary on this machine. None: see `nights.local_path`.
        partial_exit: exit code of a night that its deadline cut short.
        as_json: print the summary, and nothing else, to standard output.
        submit: submits the job; returns the client and the job's id.
        load: returns the config.
    """
    path = nights.local_path(config, summary)
    night = nights.NightRecord(config, path, nights.NightOptions(partial_exit=partial_exit), time.time())
    night.summary["step"] = "submit"
    try:
        with night.reported():
            night.config = load()
            client, job = submit(night.config)
            finder = _SummaryFinder(print_to_stderr if as_json else print_text)
            with closing(LogLines(finder)) as lines:
                code = followed(client, job, lines, f"job {job} on {client.get_address()}")
            if finder.summary is None:
                state = f"job {job} gave no summary (exit code {code}), and may go on"
                raise TesseraError(f"{state}: `tessera jobs status {job}`, `tessera jobs logs {job}`")
            night.take(finder.summary)
    except TesseraError as error:
        end_night(night, as_json, error)
    end_night(night, as_json)


def arguments(deadline: str | None, wait: str | None) -> Sequence[str]:
    """Returns the program of the job and its arguments."""
    options = [("--deadline", deadline), ("--wait", wait)]
    given = [one for name, value in options if value is not None for one in (name, value)]
    return ["jobs.nightly", "config.json", "--json", *given]
