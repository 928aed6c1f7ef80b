"""The result of the comparison."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline.dataset.commit.data_files import FileKind
from pipeline.dataset.diff import result
from pipeline.dataset.diff.columns import IF_DONE, RETRY_WINDOW, WINDOW_COUNT
from pipeline.dataset.diff.difference import compare
from tests.dataset.diff.test_difference import drops, listing, state, stored


def test_a_duplicate_id_is_an_error() -> None:
    with pytest.raises(result.DuplicateIdError, match="b"):
        compare([listing({"a": "1", "b": "1"}), listing({"b": "2"})], [], emit=lambda table: None)


def test_samples_that_are_left_keep_their_rows_and_lose_what_interrupted_runs_wrote_of_them() -> None:
    rows = [
        stored("changed", "1"),
        stored("left", "1", 0),
        stored("left", "1", 1),
        stored("gone", "1"),
        stored("failed", "1", 0),
        stored("failed", "1", 1, row_kind=FileKind.FAILURE, retry=RETRY_WINDOW, feature="p", file=1),
        stored("part", "1", 0, run=1, file=5),
        stored("part", "1", 3, run=1, row_kind=WINDOW_COUNT, file=-1),
        stored("stale", "0", 0, run=1, file=5),
        stored("stale", "0", 1, run=1, row_kind=WINDOW_COUNT, file=-1),
    ]
    samples = {"new": "1", "changed": "2", "left": "2", "failed": "1", "part": "1", "stale": "1"}
    work: list[pa.Table] = []
    done = compare([listing(samples)], [state(rows)], emit=work.append)
    assert (done.work, drops(done)) == (6, {0: {0, 1, 2, 3}, 1: {5}, 5: {8}})
    left = pc.is_in(work[0]["sample_id"], pa.array(["new", "left", "failed", "part", "stale"]))
    done.leave(work[0].filter(left).select(IF_DONE.names))
    assert (done.work, drops(done)) == (1, {0: {0, 3}, 5: {6, 8}})
