"""The lag counts the samples that wait, and since when they may."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.nightly import lag

_UTC = datetime.UTC


def _run(root: Path, hour: int, status: str, **more: Any) -> None:
    started = datetime.datetime(2026, 1, 1, hour, tzinfo=_UTC)
    folder = root / "_runs" / f"{started:%Y%m%dT%H%M%S}-00aa"
    folder.mkdir(parents=True)
    values = {"status": status, "started": started.isoformat(), **more}
    (folder / "report.json").write_text(json.dumps(values))


def test_since_the_last_complete_run(tmp_path: Path) -> None:
    for hour, status in ((1, "complete"), (2, "complete"), (3, "partial"), (4, "broken off")):
        _run(tmp_path, hour, status)
    (tmp_path / "_runs" / "20260101T050000-00aa").mkdir()  # killed before its report
    (tmp_path / "_runs" / "20260101T060000-00aa").mkdir()
    (tmp_path / "_runs" / "20260101T060000-00aa" / "report.json").write_text("{")
    found = lag.measure(str(tmp_path), 7)
    assert found == lag.Lag(7, datetime.datetime(2026, 1, 1, 2, tzinfo=_UTC))
    plain = found.plain(datetime.datetime(2026, 1, 1, 5, tzinfo=_UTC))
    assert plain == {"samples": 7, "since": "2026-01-01T02:00:00+00:00", "oldest_age_s": 10_800.0}


def test_no_sample_waits(tmp_path: Path) -> None:
    _run(tmp_path, 1, "complete")
    assert lag.measure(str(tmp_path), 0).plain(datetime.datetime.now(_UTC)) == {
        "samples": 0,
        "since": None,
        "oldest_age_s": None,
    }


def test_never_complete_counts_from_the_first_run(tmp_path: Path) -> None:
    assert lag.measure(str(tmp_path), None) == lag.Lag(None, None)
    _run(tmp_path, 3, "broken off")
    _run(tmp_path, 2, "broken off")
    assert lag.measure(str(tmp_path), None) == lag.Lag(None, datetime.datetime(2026, 1, 1, 2, tzinfo=_UTC))


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (None, None),
        ({"status": "complete", "samples_left": 0}, 0),
        ({"status": "partial", "samples_left": 5}, 5),
        ({"status": "broken off", "samples_planned": 9}, 9),
        ({"status": "broken off"}, None),
    ],
)
def test_waiting(report: dict[str, Any] | None, expected: int | None) -> None:
    assert lag.waiting(report) == expected


def test_the_report_of_this_night(tmp_path: Path) -> None:
    _run(tmp_path, 1, "complete")
    _run(tmp_path, 2, "broken off", samples_planned=4)
    found = lag.report_of(str(tmp_path), "20260101T020000-00aa")
    assert found is not None
    assert found["samples_planned"] == 4
    assert lag.report_of(str(tmp_path), "20260101T030000-00aa") is None


def test_reports_of_a_dataset_of_somebody_else(tmp_path: Path) -> None:
    _run(tmp_path, 1, "complete")
    for hour, text in (
        (2, "[" * 100_000),
        (3, '{"started": 3, "status": []}'),
        (4, '{"started": "2026-01-01T04:00:00"}'),
    ):
        folder = tmp_path / "_runs" / f"20260101T0{hour}0000-00aa"
        folder.mkdir()
        (folder / "report.json").write_text(text)
    link = tmp_path / "_runs" / "20260101T050000-00aa"
    link.mkdir()
    (link / "report.json").symlink_to("/etc/passwd")
    assert lag.measure(str(tmp_path), 1).since == datetime.datetime(2026, 1, 1, 1, tzinfo=_UTC)
