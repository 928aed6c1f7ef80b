"""The failure budget: past it a run ends with an error, though what it wrote is committed and valid."""

from __future__ import annotations

import contextlib
from typing import Any

from pipeline.config.models import FailureConfig
from pipeline.core import strict_json
from pipeline.core.errors import TesseraError
from pipeline.dataset.commit import snapshots
from pipeline.dataset.commit.folder import DatasetFolder
from pipeline.dataset.commit.snapshots import Snapshot

_ALL, _HALF = 5, 20
"""Rows from which on it is an error if all of them fail, or half."""


def check_budget(budget: FailureConfig, report: dict[str, Any]) -> tuple[str | None, list[str]]:
    """Compares a run's failed rows with the budget. Rows that are tried again count neither as rows nor as failed.

    Returns:
        why the budget is exceeded, or None; and warnings, where many failed of too few rows to be sure.
    """
    rows, failed = _new_rows(report)
    over = budget.max_rows is not None and failed > budget.max_rows
    over |= rows >= budget.min_rows and failed > budget.max_fraction * rows
    half = failed > 0 and 2 * failed >= rows
    alarming = not budget.allow_all and ((failed == rows >= _ALL) or (half and rows >= _HALF))
    if over or alarming:
        limits = f"max_fraction {budget.max_fraction:.1%}"
        limits += f", max_rows {budget.max_rows}" if budget.max_rows is not None else ""
        why = f"over the budget of {limits}" if over else "which only failures.allow_all: true allows"
        share = f"{failed / max(1, rows):.1%}; {_kinds(report)}"
        return f"{failed} of {rows} rows failed ({share}), {why}; what was written is committed and valid", []
    if half and not budget.allow_all:
        how = "all" if failed == rows else f"{failed} of"
        return None, [f"{how} {rows} new {'row' if rows == 1 else 'rows'} failed ({_kinds(report)})"]
    return None, []


def _new_rows(report: dict[str, Any]) -> tuple[int, int]:
    """New rows of a run, those of a run that it continued counted; and how many of them failed."""
    adopted = report["samples_by_class"]
    rows = report["rows_planned"] - report["rows_retried"] + adopted["new_rows_adopted"]
    failed = report["rows_with_failures"] - report["rows_retried_with_failures"]
    return rows, failed + adopted["new_rows_adopted_with_failures"]


def _kinds(report: dict[str, Any]) -> str:
    kinds = [f"{count} {kind}" for kind, count in report["failures_by_kind"].items()]
    if before := report["samples_by_class"]["new_rows_adopted_with_failures"]:
        kinds.append(f"{before} in the run that was killed")
    more = ", failures of rows that were tried again among them" if report["rows_retried_with_failures"] else ""
    return ", ".join(kinds) + more


# -- a run that was killed between its commit and its judgement ------------------------------------


def mark_checked(folder: DatasetFolder, run_id: str) -> None:
    """Notes that the failures of a run were compared with the budget."""
    folder.publish(_mark(run_id), b"{}\n")


def unchecked_report(folder: DatasetFolder, base: Snapshot | None) -> dict[str, Any] | None:
    """Returns the report of the last run that committed, if it was stopped before it was judged. What upkeep committed
    since, up to ``base``, is passed over."""
    while base is not None and base.kind != "extract":
        try:
            base = snapshots.read(folder.root, base.number - 1)
        except (FileNotFoundError, TesseraError):  # it was vacuumed
            return None
    if base is None or folder.is_file(_mark(base.run_id)):
        return None
    path = f"_runs/{base.run_id}/report.json"
    with contextlib.suppress(OSError, TesseraError):  # it is gone, or no run wrote it
        values = strict_json.parse(folder.read(path), folder.url(path))
        if values.member("status", None).value != "complete":
            return None  # of an earlier Tessera, which left no marks
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


def _mark(run_id: str) -> str:
    return f"_runs/{run_id}/judged.json"
