"""The comparison finds what a plain loop over samples finds, in memory and spilled to disk."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import defaultdict
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.errors import StorageError
from pipeline.core.schema import LISTING
from pipeline.dataset.commit.data_files import FileKind
from pipeline.dataset.diff import _partitioner, result
from pipeline.dataset.diff.columns import EXTRA, IF_DONE, RETRY_SAMPLE, RETRY_WINDOW, STATE, WINDOW_COUNT
from pipeline.dataset.diff.difference import compare
from tests.support import ROOT, bounded

Row = dict[str, Any]


def listing(samples: dict[str, str]) -> pa.Table:
    rows = [{"sample_id": name, "source_version": version, "text_uri": name} for name, version in samples.items()]
    return pa.Table.from_pylist(rows, schema=LISTING)


def state(rows: list[Row]) -> pa.Table:
    plain = {"run": 0, "file": 0, "retry": 0, "attempts": 1, "feature": None, "row_kind": FileKind.ROW}
    return pa.Table.from_pylist([{**plain, "position": i, **row} for i, row in enumerate(rows)], schema=STATE)


def run(samples: dict[str, str], rows: list[Row], **options: Any) -> tuple[result.Difference, list[Row]]:
    work: list[Row] = []
    done = compare([listing(samples)], [state(rows)], emit=lambda table: work.extend(table.to_pylist()), **options)
    return done, work


def drops(done: result.Difference) -> dict[int, set[int]]:
    return {file: set(np.concatenate(found).tolist()) for file, found in done.drops.items()}


def stored(name: str, version: str, window: int = 0, **more: Any) -> Row:
    return {"sample_id": name, "source_version": version, "window": window, **more}


def test_by_hand() -> None:
    rows = [
        stored("same", "1"),
        stored("changed", "1"),
        stored("changed", "1", 1),
        stored("gone", "1"),
        stored("failed", "1", 0),
        stored("failed", "1", 1, row_kind=FileKind.FAILURE, retry=RETRY_WINDOW, attempts=2, feature="p"),
        stored("failed", "1", 1),
        stored("unread", "1", 0, row_kind=FileKind.FAILURE, retry=RETRY_SAMPLE),
        stored("corrupt", "1", 0, row_kind=FileKind.FAILURE),
        stored("nothing", "1", 0, row_kind=FileKind.EMPTY),
    ]
    samples = {"new": "1", "same": "1", "changed": "2", "failed": "1", "unread": "1", "corrupt": "1", "nothing": "1"}
    done, work = run(samples, rows)
    assert vars(done.counts) == {
        "new": 1,
        "changed": 1,
        "unchanged": 3,
        "deleted": 1,
        "retried": 2,
        "forgotten": 0,
        "forbidden": 0,
        "adopted": 0,
        "rows_adopted": 0,
        "rows_adopted_with_failures": 0,
        "new_rows_adopted": 0,
        "new_rows_adopted_with_failures": 0,
    }
    assert [(w["sample_id"], w["replaces"], w["windows_done"], w["attempts"]) for w in work] == [
        ("new", False, [], []),
        ("changed", True, [], []),
        ("failed", True, [0], [{"window": 1, "feature": "p", "attempts": 2}]),
        ("unread", True, [], [{"window": 0, "feature": None, "attempts": 1}]),
    ]
    assert drops(done) == {0: {1, 2, 3, 5, 6, 7}}
    kept, _ = run(samples, rows, keep_deleted=True)
    assert drops(kept) == {0: {1, 2, 5, 6, 7}}


def test_rows_of_an_interrupted_run_are_adopted_and_the_rest_computed() -> None:
    rows = [
        stored("whole", "1", 0, run=1, file=5),
        stored("whole", "1", 1, run=1, file=5),
        stored("whole", "1", 2, run=1, row_kind=WINDOW_COUNT, file=-1),
        stored("part", "1", 1, run=1, file=5),
        stored("part", "1", 3, run=1, row_kind=WINDOW_COUNT, file=-1),
        stored("stale", "0", 0, run=1, file=5),
        stored("stale", "0", 1, run=1, row_kind=WINDOW_COUNT, file=-1),
        stored("gone", "1", 0, run=1, file=5),
        stored("broken", "1", 0, run=1, row_kind=FileKind.FAILURE, file=6),
        stored("broken", "1", 0, run=1, row_kind=FileKind.FAILURE, file=6),
        stored("broken", "1", 1, run=1, row_kind=WINDOW_COUNT, file=-1),
        stored("nothing", "1", 0, run=1, row_kind=FileKind.EMPTY, file=8),
        stored("nothing", "1", 1, run=1, row_kind=WINDOW_COUNT, file=-1),
    ]
    done, work = run({"whole": "1", "part": "1", "stale": "1", "broken": "1", "nothing": "1"}, rows)
    assert [(w["sample_id"], w["windows_done"]) for w in work] == [("part", [1]), ("stale", [])]
    assert (done.counts.adopted, done.counts.rows_adopted, done.counts.new) == (3, 4, 5)  # an empty window is no row
    assert done.counts.rows_adopted_with_failures == 1
    assert drops(done) == {5: {5, 7}}


def test_a_retried_window_that_a_killed_run_finished_is_not_tried_again() -> None:
    rows = [
        stored("a", "1", 0),
        stored("a", "1", 1, row_kind=FileKind.FAILURE, retry=RETRY_WINDOW),
        stored("a", "1", 1, run=1, file=3),
        stored("a", "1", 0, run=1, file=3),
        stored("a", "1", 2, run=1, row_kind=WINDOW_COUNT, file=-1),
    ]
    done, work = run({"a": "1"}, rows)
    assert work == []
    assert drops(done) == {0: {1}, 3: {3}}


def test_rows_of_a_killed_run_are_new_unless_their_sample_was_tried_again() -> None:
    rows = [
        stored("old", "1", 0, row_kind=FileKind.FAILURE, retry=RETRY_WINDOW),
        stored("old", "1", 0, run=1, row_kind=FileKind.FAILURE, file=6),
        stored("old", "1", 1, run=1, row_kind=WINDOW_COUNT, file=-1),
        stored("new", "1", 0, run=1, row_kind=FileKind.FAILURE, file=6),
        stored("new", "1", 1, run=1, row_kind=WINDOW_COUNT, file=-1),
        stored("good", "1", 0, run=1, file=5),
        stored("good", "1", 1, run=1, row_kind=WINDOW_COUNT, file=-1),
    ]
    done, _ = run({"old": "1", "new": "1", "good": "1"}, rows)
    assert (done.counts.rows_adopted, done.counts.rows_adopted_with_failures) == (3, 2)
    assert (done.counts.new_rows_adopted, done.counts.new_rows_adopted_with_failures) == (2, 1)


def test_forgotten_samples_are_not_listed() -> None:
    done, work = run(
        {"a": "1", "b": "1"}, [stored("a", "1")], forgotten=[result.sample_hash("a"), result.sample_hash("b")]
    )
    assert (done.counts.forgotten, done.counts.new, work) == (2, 0, [])
    assert drops(done) == {0: {0}}


def test_a_window_of_two_interrupted_runs_is_adopted_once_from_the_later() -> None:
    """A worker of the first run may outlive its driver, and publish what the second run has written already."""
    rows = [
        stored("a", "1", 0, run=1, file=5),
        stored("a", "1", 1, run=1, file=5),
        stored("a", "1", 2, run=1, row_kind=WINDOW_COUNT, file=-1),
        stored("a", "1", 0, run=2, file=7),
        stored("a", "1", 0, run=2, file=8, row_kind=FileKind.FAILURE),
        stored("a", "1", 2, run=2, row_kind=WINDOW_COUNT, file=-1),
        stored("b", "1", 0, run=1, file=6, row_kind=FileKind.FAILURE),
        stored("b", "1", 1, run=1, row_kind=WINDOW_COUNT, file=-1),
        stored("b", "1", 0, run=2, file=7),
        stored("b", "1", 1, run=2, row_kind=WINDOW_COUNT, file=-1),
    ]
    done, work = run({"a": "1", "b": "1"}, rows)
    assert work == []
    assert (done.counts.adopted, done.counts.rows_adopted) == (2, 3)
    assert drops(done) == {5: {0}, 6: {6}}


def test_features_that_fail_in_turn_run_out_of_attempts() -> None:
    """Each feature is recomputed when the other is retried. Its attempts must not be counted from 1 again."""
    failed, nights = {"f": 1}, 1
    while True:
        rows = [stored("s", "1", 0)]
        for name, attempts in failed.items():
            retry = RETRY_WINDOW if attempts < 3 else 0
            rows.append(stored("s", "1", 0, row_kind=FileKind.FAILURE, retry=retry, attempts=attempts, feature=name))
        _, work = run({"s": "1"}, rows)
        if not work:
            break
        tried = {one["feature"]: one["attempts"] for one in work[0]["attempts"]}
        failed, nights = {name: tried.get(name, 0) + 1 for name in ("f", "g")}, nights + 1
        assert nights < 9
    assert (nights, failed) == (4, {"f": 4, "g": 3})


def test_a_full_disk_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_partitioner, "_IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(tempfile, "TemporaryFile", partial(open, "/dev/full", "r+b"))
    with pytest.raises(StorageError, match=r"No space left on device\): is it full\? TMPDIR names another place"):
        run({"a": "1"}, [])


def test_empty_sides() -> None:
    assert compare([], [], emit=lambda table: None).work == 0


@settings(deadline=None, max_examples=80)
@given(st.data())
def test_it_is_what_a_plain_loop_finds(data: st.DataObject) -> None:
    """Also if the tables are spilled into partitions, which changes the order."""
    names = [f"s{i}é" for i in range(12)]
    samples = {n: data.draw(st.sampled_from("12")) for n in names if data.draw(st.booleans())}
    rows = []
    for name in names:
        if not data.draw(st.booleans()):
            continue
        version = data.draw(st.sampled_from("12"))
        for window in range(data.draw(st.integers(1, 3))):
            rows.append(stored(name, version, window))
            if data.draw(st.booleans()):
                retry = data.draw(st.sampled_from([0, RETRY_WINDOW, RETRY_SAMPLE]))
                rows.append(stored(name, version, window, row_kind=FileKind.FAILURE, retry=retry, file=1))
    expected = _plainly(samples, rows)
    done, work = run(samples, rows)
    assert (_seen(done, work)) == expected
    assert [w["sample_id"] for w in work] == [n for n in samples if n in expected[0]]
    limit, _partitioner._IN_MEMORY_BYTES = _partitioner._IN_MEMORY_BYTES, 100
    try:
        assert _seen(*run(samples, rows)) == expected
    finally:
        _partitioner._IN_MEMORY_BYTES = limit


def _seen(done: result.Difference, work: list[Row]) -> tuple[dict[str, list[int]], dict[int, set[int]]]:
    return {w["sample_id"]: w["windows_done"] for w in work}, drops(done)


def _plainly(samples: dict[str, str], rows: list[Row]) -> tuple[dict[str, list[int]], dict[int, set[int]]]:
    by_name: dict[str, list[tuple[int, Row]]] = defaultdict(list)
    for i, row in enumerate(rows):
        by_name[row["sample_id"]].append((i, row))
    work: dict[str, list[int]] = {n: [] for n in samples if n not in by_name}
    gone: dict[int, set[int]] = defaultdict(set)
    for name, own in by_name.items():
        retries = {row.get("retry", 0) for _, row in own}
        all_go = name not in samples or samples[name] != own[0][1]["source_version"] or RETRY_SAMPLE in retries
        asked = {row["window"] for _, row in own if row.get("retry")}
        if name in samples and (all_go or asked):
            work[name] = [] if all_go else sorted({row["window"] for _, row in own} - asked)
        for i, row in own:
            if all_go or row["window"] in asked:
                gone[row.get("file", 0)].add(i)
    return work, dict(gone)


def test_partitions_are_stable_and_even() -> None:
    """An id is in the same partition whatever other ids are in the array, and also in a slice."""
    ids = pa.chunked_array([pa.array([f"folder/{i}.jpg" for i in range(20_000)])])
    parts = _partitioner.partition_of(ids)
    longer = pa.chunked_array([pa.array(["x" * 5_000, *ids.to_pylist()[100:200], ""]), pa.array([], pa.string())])
    assert (_partitioner.partition_of(longer)[1:-1] == parts[100:200]).all()
    assert (_partitioner.partition_of(ids.slice(100, 100)) == parts[100:200]).all()
    assert np.bincount(parts, minlength=256).max() < 2 * 20_000 / 256


@pytest.mark.parametrize("folders", [3, 200])
def test_samples_in_folders_that_were_not_listed_are_not_deleted(folders: int) -> None:
    names = [f"d{i}/x/a.txt" for i in range(300)] + ["d1", "d1x/a.txt", "a.txt"]
    rows = [{"sample_id": name, "source_version": "1", "window": 0} for name in names]
    refused = [f"d{i}/" if i % 2 else f"d{i}/x/" for i in range(folders)]
    done = compare([listing({"new": "1"})], [state(rows)], emit=lambda work: None, refused_folders=refused)
    assert done.counts.deleted == len(names) - folders


def test_long_ids_are_partitioned_in_little_memory() -> None:
    ids = pa.chunked_array([pa.array([f"{i:05}" + "x" * 20_000 for i in range(3000)])])
    done = bounded.run("tests.dataset.diff.programs.partition_long_ids")
    assert done.out == "3000"
    assert done.peak_mb < 600  # hashing all ids in one step takes 1.4 GB
    parts = _partitioner.partition_of(ids)
    assert (_partitioner.partition_of(ids.slice(70, 5)) == parts[70:75]).all()
    assert len(np.unique(parts)) == 256


def test_partitions_differ_between_processes() -> None:
    code = "import pyarrow as pa, sys; from pipeline.dataset.diff import _partitioner\n"
    code += "print(_partitioner.partition_of(pa.chunked_array([[str(i) for i in range(50)]])).tolist())"
    first, second = (subprocess.check_output([sys.executable, "-c", code], cwd=ROOT) for _ in range(2))
    assert first != second


def test_the_work_keeps_the_columns_of_the_corpus() -> None:
    table = listing({"a": "1", "b": "1"}).append_column("label", pa.array(["x", "y"]))
    work: list[pa.Table] = []
    compare([table], [], emit=work.append)
    assert work[0].schema.names == [*LISTING.names, "label", *EXTRA.names, *IF_DONE.names]
    assert work[0]["label"].to_pylist() == ["x", "y"]
