"""The content of a dataset for the comparison: each live row, failure and empty window, with its position."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.core.schema import FAILURES
from pipeline.dataset.commit import snapshots
from pipeline.dataset.commit.data_files import FileKind
from pipeline.dataset.diff import _stored_rows, index
from pipeline.dataset.diff._retry import with_retry
from pipeline.dataset.diff.columns import RETRY_SAMPLE, RETRY_WINDOW, STATE, WINDOW_COUNT
from pipeline.dataset.diff.index import RetryPolicy
from tests.support.dataset_fixtures import RUNS, added, night, write


def seen(tables: Any) -> list[tuple[Any, ...]]:
    rows = pa.concat_tables(tables).to_pylist()
    return [(r["sample_id"], r["row_kind"], r["file"], r["position"], r["retry"], r["run"]) for r in rows]


def test_live_rows_with_their_positions(tmp_path: Path) -> None:
    night(tmp_path, RUNS[1], ["a", "b", "c"], {1: "io"})
    night(tmp_path, RUNS[2], ["d"], drops={f"data/{RUNS[1]}-000000-000.parquet": [0]})
    newest = snapshots.newest(str(tmp_path))
    assert newest is not None
    assert seen(index.of_snapshot(str(tmp_path), newest, RetryPolicy())) == [
        ("c", FileKind.ROW, 0, 1, 0, 0),
        ("d", FileKind.ROW, 1, 0, 0, 0),
        ("b", FileKind.FAILURE, 2, 0, RETRY_WINDOW, 0),
    ]


def test_which_failures_are_tried_again(tmp_path: Path) -> None:
    rows = [
        {"stage": stage, "kind": kind, "attempts": attempts, "feature": feature}
        for stage, kind, attempts, feature in (
            ("decode", "io", 1, "f"),
            ("decode", "io", 3, "f"),
            ("decode", "corrupt", 1, "f"),
            ("probe", "missing", 1, "f"),
            ("encode", "memory", 2, "f"),
            ("decode", "io", 1, None),
        )
    ]
    failures = pa.Table.from_pylist(rows, schema=pa.schema([FAILURES.field(name) for name in rows[0]]))
    blank = pa.Table.from_pylist([{"sample_id": "a"}] * len(rows), schema=STATE)
    expected = [RETRY_WINDOW, 0, 0, RETRY_SAMPLE, RETRY_WINDOW, RETRY_SAMPLE]
    assert with_retry(blank, failures, RetryPolicy(max_attempts=3))["retry"].to_pylist() == expected
    everything = with_retry(blank, failures, RetryPolicy(all=True))
    assert everything["retry"].to_pylist() == [RETRY_WINDOW] * 3 + [RETRY_SAMPLE, RETRY_WINDOW, RETRY_SAMPLE]
    assert everything["attempts"].to_pylist() == [1, 3, 1, 1, 2, 1]


def test_complete_tasks_of_an_interrupted_run_are_read(tmp_path: Path) -> None:
    done = write(tmp_path, RUNS[1], ["a", "a", "b"], {2: "corrupt"})
    killed = index.killed_run(str(tmp_path), RUNS[1])
    expected = [*added(done).with_kinds()]
    assert killed.files == expected
    assert seen(index.of_killed(str(tmp_path), [killed], 10)) == [
        ("a", FileKind.ROW, 10, 0, 0, 1),
        ("a", FileKind.ROW, 10, 1, 0, 1),
        ("b", FileKind.FAILURE, 11, 0, 0, 1),
        ("a", WINDOW_COUNT, -1, -1, 0, 1),
        ("b", WINDOW_COUNT, -1, -1, 0, 1),
    ]
    assert FileKind.EMPTY not in {kind for kind, _ in expected}
    assert index.killed_run(str(tmp_path), RUNS[2]).files == []


def test_a_window_of_a_negative_number_is_refused() -> None:
    """No writer produces one, and sets of windows are computed from their numbers."""
    table = pa.table({"sample_id": ["a"], "source_version": ["1"], "window": pa.array([-1], pa.int32())})
    with pytest.raises(pa.ArrowInvalid, match="a window of a negative number"):
        _stored_rows.key_columns(table, ["sample_id", "source_version", "window"])
