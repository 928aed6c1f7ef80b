"""The failure budget: a run that exceeds it ends with an error. What the run wrote is committed and valid."""

from __future__ import annotations

import contextlib
from typing import Any

from pipeline.config.models import FailureConfig
from pipeline.core import strict_json
from pipeline.core.errors import TesseraError
from pipeline.dataset.commit import snapshots
from pipeline.dataset.commit.folder import DatasetFolder
from pipeline.dataset.commit.snapshots import Snapshot

_ALL_ROWS, _HALF_ROWS = 5, 20
"""Fewest rows of which it is an error that all of them, or half of them, fail."""


def check_budget(budget: FailureConfig, report: dict[str, Any]) -> tuple[str | None, list[str]]:
    """Compares the failed rows of a run with the budget. Retried rows count neither as rows nor as failures.

    Returns:
        Why the budget is exceeded, or None; and warnings if at least half of the rows failed, but too few to decide.
    """
    rows, failed = new_rows(report)
    is_over = budget.max_rows is not None and failed > budget.max_rows
    is_over |= rows >= budget.min_rows and failed > budget.max_fraction * rows
    half = failed > 0 and 2 * failed >= rows
    is_alarming = not budget.allow_all and ((failed == rows >= _ALL_ROWS) or (half and rows >= _HALF_ROWS))
    if is_over or is_alarming:
        limits = f"max_fraction {budget.max_fraction:.1%}"
        limits += f", max_rows {budget.max_rows}" if budget.max_rows is not None else ""
        why = f"over the budget of {limits}" if is_over else "which only failures.allow_all: true allows"
        share = f"{failed / max(1, rows):.1%}; {_kinds(report)}"
        return f"{failed} of {rows} rows failed ({share}), {why}; what was written is committed and valid", []
    if half and not budget.allow_all:
        how = "all" if failed == rows else f"{failed} of"
        return None, [f"{how} {rows} new {'row' if rows == 1 else 'rows'} failed ({_kinds(report)})"]
    return None, []


def new_rows(report: dict[str, Any]) -> tuple[int, int]:
    """Returns how many new rows a run has, with those of the run that it continued, and how many of them failed."""
    adopted = report["samples_by_class"]
    rows = report["rows_planned"] - report["rows_retried"] + adopted["new_rows_adopted"]
    failed = report["rows_with_failures"] - report["rows_retried_with_failures"]
    return rows, failed + adopted["new_rows_adopted_with_failures"]


def _kinds(report: dict[str, Any]) -> str:
    """Returns the failures by kind as text."""
    kinds = [f"{count} {kind}" for kind, count in report["failures_by_kind"].items()]
    if before := report["samples_by_class"]["new_rows_adopted_with_failures"]:
        kinds.append(f"{before} in the run that was killed")
    more = ", failures of rows that were tried again among them" if report["rows_retried_with_failures"] else ""
    return ", ".join(kinds) + more


# -- a run that was killed after its commit and before its check -----------------------------------


def mark_checked(folder: DatasetFolder, run_id: str) -> None:
    """Records that the failures of a run were compared with the budget."""
    folder.publish(_mark_path(run_id), b"{}\n")


def unchecked_report(folder: DatasetFolder, base: Snapshot | None) -> dict[str, Any] | None:
    """Returns the report of the last run that committed, if its failures were not compared with the budget.

    Args:
        base: the newest snapshot. Snapshots of maintenance commands are skipped.
    """
    while base is not None and base.kind != "extract":
        try:
            base = snapshots.read(folder.root, base.number - 1)
        except (FileNotFoundError, TesseraError):  # vacuum has deleted it
            return None
    if base is None or folder.is_file(_mark_path(base.run_id)):
        return None
    path = f"_runs/{base.run_id}/report.json"
    with contextlib.suppress(OSError, TesseraError):  # deleted, or not written by a run
        values = strict_json.parse(folder.read(path), folder.url(path))
        if values.member("status", None).value not in ("complete", "partial"):
            return None  # written by an earlier Tessera, which left no marks
        report: dict[str, Any] = {"run_id": base.run_id, "failures_by_kind": {}}
        for name in ("rows_planned", "rows_with_failures", "rows_retried", "rows_retried_with_failures"):
            report[name] = values.member(name).integer()
        classes = values.member("samples_by_class")
        report["samples_by_class"] = {
            name: classes.member(name).integer() for name in ("new_rows_adopted", "new_rows_adopted_with_failures")
        }
        kinds = values.member("failures_by_kind")
        report["failures_by_kind"] = {name: kinds.member(name).integer() for name in kinds.object()}
        return report
    return None


def _mark_path(run_id: str) -> str:
    return f"_runs/{run_id}/judged.json"
