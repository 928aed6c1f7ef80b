"""The failure budget by hand, and over runs: everything that fails, a kill before the judgement, rows tried again."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pipeline import dataset, run
from pipeline.config.models import FailureConfig
from pipeline.core.errors import BudgetExceeded
from pipeline.dataset import maintenance
from pipeline.run import budget, extraction
from tests.end_to_end.test_nights import config, counts, draw
from tests.support import local_runs


def report(
    rows: int, failed: int, retried: tuple[int, int] = (0, 0), adopted: tuple[int, int] = (0, 0)
) -> dict[str, Any]:
    return {
        "run_id": "r",
        "rows_planned": rows + retried[0],
        "rows_with_failures": failed + retried[1],
        "rows_retried": retried[0],
        "rows_retried_with_failures": retried[1],
        "samples_by_class": {"new_rows_adopted": adopted[0], "new_rows_adopted_with_failures": adopted[1]},
        "failures_by_kind": {"corrupt": failed},
    }


@pytest.mark.parametrize(
    ("rows", "failed", "exceeded", "warned"),
    [
        (0, 0, False, False),
        (6, 6, True, False),  # below min_rows, and yet nothing came out
        (5, 5, True, False),
        (4, 4, False, True),
        (5, 4, False, True),
        (19, 10, False, True),
        (20, 10, True, False),
        (20, 9, False, False),
        (199, 98, False, False),
        (200, 11, True, False),
        (200, 10, False, False),
    ],
)
def test_of_new_rows(rows: int, failed: int, exceeded: bool, warned: bool) -> None:
    why, warnings = budget.check_budget(FailureConfig(), report(rows, failed))
    assert ((why is not None), bool(warnings)) == (exceeded, warned)
    lenient, none = budget.check_budget(FailureConfig(allow_all=True, max_fraction=1.0), report(rows, failed))
    assert (lenient, none) == (None, [])
    strict, _ = budget.check_budget(FailureConfig(max_fraction=1.0, min_rows=0), report(rows, failed))
    assert (strict is not None) == (exceeded and rows < 200), "whatever max_fraction and min_rows say"


def test_rows_that_are_tried_again_do_not_count() -> None:
    assert budget.check_budget(FailureConfig(max_rows=0), report(300, 0, retried=(300, 300))) == (None, [])
    why, _ = budget.check_budget(FailureConfig(), report(6, 6, retried=(500, 0)))
    assert why is not None
    assert why.startswith("6 of 6 rows failed (100.0%; 6 corrupt), which only failures.allow_all: true allows")


def test_rows_of_a_run_that_was_continued_count() -> None:
    why, _ = budget.check_budget(FailureConfig(), report(0, 0, adopted=(7, 7)))
    assert why is not None
    assert "7 in the run that was killed" in why
    assert budget.check_budget(FailureConfig(), report(6, 6, adopted=(20, 0))) == (None, [])


def test_both_budgets_are_named() -> None:
    why, _ = budget.check_budget(FailureConfig(max_rows=3), report(300, 60))
    assert why is not None
    assert "60 of 300 rows failed (20.0%; 60 corrupt), over the budget of max_fraction 5.0%, max_rows 3" in why


def _night(folder: Path, **failures: Any) -> dict[str, Any]:
    return run.extract(local_runs.prepare(config(folder, failures=failures)), show_progress=False)


def _bad(folder: Path, first: int, last: int) -> None:
    (folder / "in").mkdir(exist_ok=True)
    for i in range(first, last):
        (folder / "in" / f"bad{i}.png").write_bytes(b"no picture")


def test_six_of_six_broken_files(ray_session: Any, tmp_path: Path) -> None:
    _bad(tmp_path, 0, 6)
    with pytest.raises(BudgetExceeded, match="6 of 6 rows failed"):
        _night(tmp_path)
    assert dataset.open(str(tmp_path / "out")).num_failures == 6, "committed all the same"
    assert counts(_night(tmp_path)) == {"unchanged": 6}, "and judged once"
    _bad(tmp_path, 6, 8)
    few = _night(tmp_path)
    assert few["warnings"] == ["all 2 new rows failed (2 unsupported)"]
    stored = json.loads((tmp_path / "out" / "v1" / "_runs" / few["run_id"] / "report.json").read_text())
    assert stored["warnings"] == few["warnings"]


def test_a_kill_between_the_commit_and_the_judgement(
    ray_session: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run judges the one that was killed, even where it has nothing to do; and no other."""
    _bad(tmp_path, 0, 6)

    class Dead(BaseException):
        pass

    def die(*args: Any) -> None:
        raise Dead

    with monkeypatch.context() as patched:
        patched.setattr(budget, "mark_checked", die)
        with pytest.raises(Dead):
            _night(tmp_path)
    assert dataset.open(str(tmp_path / "out")).num_failures == 6
    maintenance.rollback(str(tmp_path / "out"), 1)  # which commits a snapshot of its own
    with pytest.raises(
        BudgetExceeded, match=r"run \S+, which was stopped before its failures were judged: 6 of 6 rows"
    ):
        _night(tmp_path)
    assert counts(_night(tmp_path)) == {"unchanged": 6}
    assert counts(_night(tmp_path, allow_all=True)) == {"unchanged": 6}


def test_a_run_that_breaks_off_says_why(ray_session: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path, "a", 1)

    def full(*args: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(extraction, "_compute", full)
        with pytest.raises(OSError, match="No space left"):
            _night(tmp_path)
    runs = tmp_path / "out" / "v1" / "_runs"
    (one,) = os.listdir(runs)
    broken = json.loads((runs / one / "report.json").read_text())
    assert (broken["status"], broken["run_id"]) == ("broken off", one)
    assert "No space left on device" in broken["cause"]
    done = _night(tmp_path)
    assert (done["status"], done["samples"]) == ("complete", 1)
    assert done["devices"]["cpus"] >= 1
    assert done["workers"]["processes"] >= 1
    assert done["workers"]["peak_memory_bytes"] > 100 << 20
    assert done["started"] < done["ended"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"status": "complete"}', '{"status": "complete", "rows_planned": -1}']
)
def test_a_report_that_no_run_writes_is_not_judged(ray_session: Any, tmp_path: Path, text: str) -> None:
    from pipeline.dataset.commit import snapshots
    from pipeline.dataset.commit.folder import DatasetFolder
    from tests.support.dataset_fixtures import RUNS, night

    root = tmp_path / "v1"
    night(root, RUNS[1], ["a"])
    (root / "_runs" / RUNS[1]).mkdir(parents=True, exist_ok=True)
    (root / "_runs" / RUNS[1] / "report.json").write_text(text)
    assert budget.unchecked_report(DatasetFolder(str(root)), snapshots.newest(str(root))) is None
