"""Alerts of a night: what is no error, and what somebody should look at. And what must not happen unattended."""

from __future__ import annotations

import math
from typing import Any

from pipeline.config.models import PipelineConfig
from pipeline.config.nightly import AlertConfig
from pipeline.core.errors import ConfigError
from pipeline.run import budget
from pipeline.run.planning import Plan

_FEW_SAMPLES = 20
"""So many samples may be deleted in any night."""
_Z = 1.96
"""Of an interval of 95 %."""


def of_report(report: dict[str, Any], config: AlertConfig) -> list[str]:
    """Returns the alerts of a run that is committed."""
    return [*failed_rows(report, config), *deleted_samples(report, config)]


def deleted_samples(report: dict[str, Any], config: AlertConfig) -> list[str]:
    """Returns an alert if many of the stored samples are not listed any more."""
    counts = report["samples_by_class"]
    deleted = counts["deleted"]
    stored = deleted + counts["unchanged"] + counts["changed"] + counts["retried"]
    if deleted < _FEW_SAMPLES or deleted <= config.max_deleted_fraction * stored:
        return []
    limit = f"more than nightly.alert.max_deleted_fraction {config.max_deleted_fraction:.0%}"
    return [f"{deleted} of {stored} stored samples are not listed any more, {limit}: is the corpus complete?"]


def failed_rows(report: dict[str, Any], config: AlertConfig) -> list[str]:
    """Returns an alert if too many of a run's new rows failed.

    Args:
        report: the report of a run.
        config: from how many rows and which fraction on.
    """
    rows, failed = budget.new_rows(report)
    if failed < config.min_rows or lower_bound(failed, rows) <= config.max_fraction:
        return []
    kinds = ", ".join(f"{number} {kind}" for kind, number in report["failures_by_kind"].items())
    limit = f"more than nightly.alert.max_fraction {config.max_fraction:.1%}"
    return [f"{failed} of {rows} new rows failed ({failed / rows:.1%}; {kinds}), {limit}"]


def check_deletions(plan: Plan, config: PipelineConfig) -> None:
    """Checks that a night does not delete a large part of the dataset.

    Raises:
        ConfigError: the source lists so little that it is more likely to have moved.
    """
    counts, most = plan.difference.counts, config.nightly.max_deleted_fraction
    stored = counts.deleted + counts.unchanged + counts.changed + counts.retried
    if config.output.on_delete == "keep" or counts.deleted < _FEW_SAMPLES or counts.deleted <= most * stored:
        return
    raise ConfigError(
        "source",
        f"{counts.deleted} of {stored} stored samples are not listed any more, more than "
        f"nightly.max_deleted_fraction {most:.0%}; nothing was deleted",
        "if the corpus has moved, correct source; if they are meant to go, run `tessera extract`",
    )


def lower_bound(failed: int, rows: int) -> float:
    """Returns the lower bound of Wilson's 95 % interval of a fraction: 3 of 10 are evidence for 11 %, 30 of 100 for
    22 %.

    Source: E. B. Wilson, Journal of the American Statistical Association 22 (1927), 209-212.
    """
    if rows <= 0:
        return 0.0
    fraction, square = failed / rows, _Z * _Z
    centre = fraction + square / (2 * rows)
    spread = _Z * math.sqrt(fraction * (1 - fraction) / rows + square / (4 * rows * rows))
    return max(0.0, (centre - spread) / (1 + square / rows))
