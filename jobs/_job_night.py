"""A night as a job on a Ray cluster: submits it, follows it, and writes its summary on this machine."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from jobs._job_output import followed, print_text, print_to_stderr
from jobs.nightly import end_night
from pipeline import nightly as nights
from pipeline.core.errors import TesseraError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

    from pipeline.config.models import PipelineConfig

_BEGINS = '{"contract": '
"""Begins the line of a job's log with the summary."""


class _Collector:
    """Writes the lines of a log, but for the summary, which it keeps. A log comes in pieces, which may end within a
    line."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.write, self.rest = write, ""
        self.summary: dict[str, Any] | None = None

    def __call__(self, text: str) -> None:
        *lines, self.rest = f"{self.rest}{text}".split("\n")
        for line in lines:
            if not self._is_summary(line):
                self.write(f"{line}\n")

    def _is_summary(self, line: str) -> bool:
        if not line.startswith(_BEGINS):
            return False
        try:
            self.summary = json.loads(line)
        except ValueError:
            return False
        return True

    def close(self) -> None:
        """Takes a last line that has no end."""
        if self.rest:
            self("\n")


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
            collector = _Collector(print_to_stderr if as_json else print_text)
            code = followed(client, job, collector, f"job {job} on {client.get_address()}")
            collector.close()
            if collector.summary is None:
                state = f"job {job} gave no summary (exit code {code}), and may go on"
                raise TesseraError(f"{state}: `tessera jobs status {job}`, `tessera jobs logs {job}`")
            night.take(collector.summary)
    except TesseraError as error:
        end_night(night, as_json, error)
    end_night(night, as_json)


def arguments(deadline: str | None, wait: str | None) -> Sequence[str]:
    """Returns the program of the job and its arguments."""
    options = [("--deadline", deadline), ("--wait", wait)]
    given = [one for name, value in options if value is not None for one in (name, value)]
    return ["jobs.nightly", "config.json", "--json", *given]
