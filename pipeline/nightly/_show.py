"""The summary of a night, printed on a terminal."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pipeline.core.terminal import Console, count, print_wrapped, size
from pipeline.run import report as reporting


def show(summary: dict[str, Any], path: str, console: Console) -> None:
    """Prints the report of the run, and what the night did besides.

    Args:
        path: where the summary is.
    """
    if summary["report"] is not None and "features" in summary["report"]:
        reporting.show(summary["report"], console)
    for line in lines(summary):
        print_wrapped(console, line)
    console.print(f"dataset: {summary['output']}", soft_wrap=True)
    console.print(f"summary: {path}", soft_wrap=True)


def lines(summary: dict[str, Any]) -> list[str]:
    """Returns the lines about maintenance, lag and alerts."""
    found = []
    for one in summary["compact"]:
        files, written = count(one["files_rewritten"], "file"), size(one["bytes_written"])
        found.append(f"compacted {one['version']}: {files} rewritten, wrote {written}")
    for one in summary["vacuum"]:
        files, freed = count(one["files_deleted"], "file"), size(one["bytes_freed"])
        found.append(f"vacuumed {one['version']}: {files} deleted, {freed} freed")
    samples, age_s = summary["lag"]["samples"], summary["lag"]["oldest_age_s"]
    if samples:
        age = "" if age_s is None else f", none longer than {timedelta(seconds=round(age_s))}"
        found.append(f"lag: {count(samples, 'sample waits', 'samples wait')}{age}")
    found += [f"alert: {one}" for one in summary["alerts"]]
    return [*found, f"night {summary['night']}: {summary['status']} in {summary['seconds']:.0f} s"]
