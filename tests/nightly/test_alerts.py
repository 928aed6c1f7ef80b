"""The alert threshold holds for nights of any size."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config.nightly import AlertConfig
from pipeline.nightly import alerts


def _report(rows: int, failed: int, retried: int = 0, retried_failed: int = 0) -> dict[str, Any]:
    adopted = {"new_rows_adopted": 0, "new_rows_adopted_with_failures": 0}
    return {
        "rows_planned": rows + retried,
        "rows_retried": retried,
        "rows_with_failures": failed + retried_failed,
        "rows_retried_with_failures": retried_failed,
        "samples_by_class": adopted,
        "failures_by_kind": {"corrupt": failed},
    }


@pytest.mark.parametrize(
    ("failed", "rows", "expected"),
    # the roots of (p - f)^2 = z^2 p (1 - p) / n, z = 1.96, computed with numpy.roots
    [(0, 10, 0.0), (3, 10, 0.107789), (30, 100, 0.218948), (1, 1, 0.206543), (10, 10, 0.722460), (0, 0, 0.0)],
)
def test_wilsons_lower_bound(failed: int, rows: int, expected: float) -> None:
    assert alerts.lower_bound(failed, rows) == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize(
    ("rows", "failed", "is_alert"),
    [
        (1, 1, False),  # less than three failures say nothing
        (3, 3, True),
        (10, 3, True),
        (40, 3, False),  # 7.5 %, which 5 % may well give
        (40, 8, True),
        (10_000, 520, False),
        (10_000, 600, True),
        (0, 0, False),
    ],
)
def test_small_and_large_nights(rows: int, failed: int, is_alert: bool) -> None:
    assert bool(alerts.failed_rows(_report(rows, failed), AlertConfig())) == is_alert


def test_the_words() -> None:
    (found,) = alerts.failed_rows(_report(10, 4, retried=90, retried_failed=90), AlertConfig())
    assert found == "4 of 10 new rows failed (40.0%; 4 corrupt), more than nightly.alert.max_fraction 5.0%"
    assert not alerts.failed_rows(_report(10, 0, retried=90, retried_failed=90), AlertConfig())


def test_many_deleted_samples() -> None:
    def found(deleted: int, unchanged: int) -> list[str]:
        counts = {"deleted": deleted, "unchanged": unchanged, "changed": 0, "retried": 0}
        return alerts.deleted_samples({"samples_by_class": counts}, AlertConfig())

    assert not found(19, 0)
    assert not found(20, 180)
    (words,) = found(30, 200)
    assert words.startswith("30 of 230 stored samples are not listed any more, more than nightly.alert.max_deleted")
