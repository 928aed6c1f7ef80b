"""The report has the promised keys, is JSON, and its terminal form shows the figures whole."""

from __future__ import annotations

import io
import json
from pathlib import Path

from rich.console import Console

from pipeline import report as reporting
from pipeline.features import bind
from pipeline.plan import Plan, Prepared
from pipeline.sinks.shards import Written
from tests.stages.media_fixtures import IMAGE, config

KEYS = {
    *("samples", "rows_planned", "rows_written", "rows_failed", "cells", "decoded", "failures_by_kind"),
    *("seconds_by_stage", "rows_per_second", "startup_seconds", "bytes_read", "bytes_written"),
    *("peak_memory_bytes", "features", "versions"),
}


def _prepared(tmp_path: Path) -> Prepared:
    settings = config(tmp_path / "in", {"i": IMAGE})
    return Prepared(settings, bind(settings), Plan(samples=7, unused=2, samples_by_role={"image": 7}))


def test_keys_and_arithmetic(tmp_path: Path) -> None:
    written = Written(
        shards=[{"path": "a", "rows": 5, "bytes": 1000, "sha256": ""}],
        rows=7,
        rows_written=5,
        rows_failed=2,
        rows_partial=1,
        cells_planned=7,
        cells_written={"i": 5},
        cells_failed={"i": 2},
        failures_by_kind={"corrupt": 2},
        meters={"decode_s": 3.0, "decoded": 7.0, "bytes_read": 99.0},
        write_s=0.5,
    )
    report = reporting.build(
        _prepared(tmp_path),
        written,
        run_id="r",
        seconds=12.0,
        startup_seconds=5.0,
        peak_memory_bytes=1,
        versions={"python": "3"},
    )
    assert set(report) >= KEYS
    assert report["rows_per_second"] == 1.0
    assert (report["rows_planned"], report["rows_with_failures"], report["decoded"]) == (7, 3, 7)
    assert report["cells"] == {"planned": 7, "written": 5, "failed": 2}
    assert report["seconds_by_stage"]["decode"] == 3.0
    assert report["features"]["i"]["written"] == 5
    assert json.loads(json.dumps(report)) == report
    out = io.StringIO()
    reporting.show(report, Console(file=out, width=160))
    for words in ("7 rows: 5 written, 2 failed", "1.0 rows/s", "wrote 1.0 kB in 1 shards", "failures: 2 corrupt"):
        assert words in out.getvalue()


def test_the_plan_for_a_terminal(tmp_path: Path) -> None:
    out = io.StringIO()
    reporting.show_plan(_prepared(tmp_path), Console(file=out, width=160))
    for words in ("i_tokens, i_grid", "7 samples to extract (files: 7 image)", "2 listed samples", "whole sample"):
        assert words in out.getvalue()


def test_sizes_for_a_person() -> None:
    assert [reporting.size(n) for n in (0, 999, 1500, 2_000_000, 10**13)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "2.0 MB",
        "10.0 TB",
    ]
