"""Alerts of a night: what is no error, and what somebody should look at."""

from __future__ import annotations

import math
from typing import Any

from pipeline.config.nightly import AlertConfig
from pipeline.run import budget

_Z = 1.96
"""Of an interval of 95 %."""


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
