"""Shards have exactly the rows that succeeded, failure shards the cells that failed, and all cells are counted."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core.arrow import list_column, vector_list_column
from pipeline.core.schema import FAILURES, FIXED, METERS, UNIT, feature_fields
from pipeline.dataset.diff.index import RECORD
from pipeline.dataset.output import OutputConfig
from pipeline.dataset.shards.row_files import footer
from pipeline.dataset.shards.write_result import Written
from pipeline.dataset.shards.writer import ShardWriter
from pipeline.stages.rows import ROWS, Failure, failure_column, put

FIELDS = feature_fields("f", ("embedding", "tokens"), 4, "float32", "float16", True)
SCHEMA = footer(pa.schema([*FIXED, *FIELDS]), {"contract": 1, "features": {"f": {"model": "m"}}})


def rows(
    ids: list[str],
    failed: dict[int, str],
    windows: list[int] | None = None,
    absent: tuple[int, ...] = (),
    replaces: bool = False,
    attempts: int = 0,
) -> pa.Table:
    """Returns finished rows. Those in ``failed`` lack feature f; those in ``absent`` have no content."""
    count = len(ids)
    windows = windows or [0] * count
    has = [i not in failed and i not in absent for i in range(count)]
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {
        "sample_id": ids,
        "window": pa.array(windows, pa.int32()),
        "source_version": ["v"] * count,
        "final": [i + 1 == count or ids[i + 1] != ids[i] for i in range(count)],
        "windows": pa.array([ids.count(one) for one in ids], pa.int32()),
        "promised": pa.array(
            [ids.count(ids[i]) * (i + 1 == count or ids[i + 1] != ids[i]) for i in range(count)], pa.int32()
        ),
        "replaces": [replaces] * count,
        "attempts": pa.array([[{"feature": "f", "attempts": attempts}]] * count, ROWS.field("attempts").type),
        "cells": pa.array([int(i not in absent) for i in range(count)], pa.int32()),
        "failures": failure_column(
            [[Failure("f", "u", "decode", failed[i], "m")] if i in failed else [] for i in range(count)]
        ),
        UNIT: ["00000:0"] * count,
        **{f"meter_{name}": pa.array([0.5] * count) for name in METERS},
        "f_embedding": list_column([rng.normal(size=3) if h else None for h in has], pa.float32()),
        "f_tokens": vector_list_column([rng.normal(size=(2, 4)) if h else None for h in has], pa.float16(), 4),
        "f_grid": list_column([np.array([2, 1, 1]) if h else None for h in has], pa.int32()),
        "f_times": list_column([np.array([0.0, 0.1]) if h else None for h in has], pa.float64()),
    }
    for field in ROWS:
        columns.setdefault(field.name, pa.nulls(count, field.type))
    return pa.table(columns)


def write(root: Path, *tables: pa.Table, **sizes: int) -> Written:
    writer = ShardWriter(
        str(root), "r-000000", "r", {"f": [f.name for f in FIELDS]}, SCHEMA, OutputConfig(path="x", **sizes)
    )
    for table in tables:
        writer.add(table)
    return writer.close()


def test_rows_and_failures_are_written_to_their_folders(tmp_path: Path) -> None:
    table = rows(["a", "b", "c", "d"], {1: "corrupt", 2: "nan"}, absent=(3,))
    done = write(tmp_path, table)
    assert done.problems() == []
    assert (done.rows, done.rows_written, done.rows_failed, done.rows_empty, done.samples) == (4, 1, 2, 1, 4)
    assert done.failures_by_kind == {"corrupt": 1, "nan": 1}
    assert done.meters["decode_s"] == 2.0
    shard = pq.read_table(tmp_path / done.shards[0]["path"])
    assert shard["sample_id"].to_pylist() == ["a"]
    assert shard["run_id"].to_pylist() == ["r"]
    assert shard["f_tokens"].to_pylist() == table["f_tokens"].to_pylist()[:1]
    assert json.loads(shard.schema.metadata[b"tessera"])["features"]["f"]["model"] == "m"
    failures = pq.read_table(tmp_path / done.failure_shards[0]["path"])
    assert failures.schema.names == FAILURES.names
    assert failures.select(["sample_id", "feature", "kind", "row_written", "attempts"]).to_pylist() == [
        {"sample_id": "b", "feature": "f", "kind": "corrupt", "row_written": False, "attempts": 1},
        {"sample_id": "c", "feature": "f", "kind": "nan", "row_written": False, "attempts": 1},
    ]


def test_digests_and_sizes_are_those_of_the_files(tmp_path: Path) -> None:
    done = write(tmp_path, rows(["a", "b"], {}))
    for shard in [*done.shards, *done.failure_shards]:
        data = (tmp_path / shard["path"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (shard["bytes"], shard["sha256"])


def test_shards_close_by_bytes_and_row_groups_too(tmp_path: Path) -> None:
    tables = [rows([f"s{i}-{j}" for j in range(50)], {}) for i in range(8)]
    done = write(tmp_path, *tables, shard_bytes=12_000, row_group_bytes=4_000)
    assert len(done.shards) >= 2
    read = [pq.ParquetFile(tmp_path / shard["path"]) for shard in done.shards]
    ids = [i for file in read for i in file.read()["sample_id"].to_pylist()]
    assert sorted(ids) == sorted(i for table in tables for i in table["sample_id"].to_pylist())
    assert all(file.metadata.row_group(0).num_rows < 60 for file in read)


@pytest.mark.parametrize("block", [50, 128, 250, 999, 2500])
def test_row_groups_are_even(tmp_path: Path, block: int) -> None:
    """The rest of a block goes into the next row group, so only the last row group is small."""
    count = 2500
    blocks = [rows([f"s{i:04}" for i in range(at, min(at + block, count))], {}) for at in range(0, count, block)]
    (shard,) = write(tmp_path, *blocks, row_group_rows=1000).shards
    file = pq.ParquetFile(tmp_path / shard["path"])
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [1000, 1000, 500]
    assert file.read()["sample_id"].to_pylist() == [f"s{i:04}" for i in range(count)]
    assert file.metadata.row_group(0).column(0).has_offset_index
    assert file.metadata.row_group(0).column(0).has_column_index
    by_bytes = write(tmp_path / "small", *blocks, row_group_bytes=20_000).shards
    sizes = []
    for one in by_bytes:
        file = pq.ParquetFile(tmp_path / "small" / one["path"])
        for i in range(file.num_row_groups):
            table = file.read_row_group(i)
            sizes.append(len(table))
            assert table.nbytes < 22_000  # rows differ slightly in size
    assert sum(sizes) == count
    assert min(sizes[:-1]) > 0.8 * max(sizes)


def test_an_aborted_write_leaves_no_file(tmp_path: Path) -> None:
    writer = ShardWriter(
        str(tmp_path), "r", "r", {"f": [f.name for f in FIELDS]}, SCHEMA, OutputConfig(path="x", row_group_bytes=1024)
    )
    writer.add(rows([f"s{i}" for i in range(100)], {}))
    assert any(name.endswith(".tmp") for name in os.listdir(tmp_path / "data"))
    writer.abort()
    assert os.listdir(tmp_path / "data") == []


def test_a_retried_task_overwrites_its_own_file(tmp_path: Path) -> None:
    write(tmp_path, rows(["a", "b"], {}))
    done = write(tmp_path, rows(["a", "b"], {}))
    assert os.listdir(tmp_path / "data") == ["r-000000-000.parquet"]
    assert pq.read_table(tmp_path / done.shards[0]["path"]).num_rows == 2


def test_rows_that_replace_others_wait_for_the_commit(tmp_path: Path) -> None:
    new = rows(["new", "bad"], {1: "io"})
    replacing = rows(["old", "worse"], {1: "io"}, replaces=True, attempts=2)
    done = write(tmp_path, new, replacing)
    assert done.problems() == []
    places = {shard["path"]: shard.get("pending") for shard in [*done.shards, *done.failure_shards]}
    assert places == {
        "data/r-000000-000.parquet": None,
        "data/r-000000-000-r.parquet": "_runs/r/pending/data/r-000000-000-r.parquet",
        "_failures/r-000000.parquet": None,
        "_failures/r-000000-r.parquet": "_runs/r/pending/_failures/r-000000-r.parquet",
    }
    ids = [pq.read_table(tmp_path / (pending or path))["sample_id"].to_pylist() for path, pending in places.items()]
    assert ids == [["new"], ["old"], ["bad"], ["worse"]]
    failure = pq.read_table(tmp_path / "_runs/r/pending/_failures/r-000000-r.parquet").to_pylist()[0]
    assert (failure["attempts"], failure["source_version"]) == (3, "v")


def test_attempts_are_those_of_the_feature_that_fails(tmp_path: Path) -> None:
    """The attempts of another feature of the same window are not counted for it."""
    table = rows(["old"], {0: "io"}, replaces=True)
    tried = pa.array([[{"feature": "g", "attempts": 2}]], ROWS.field("attempts").type)
    table = put(table, "attempts", tried)
    done = write(tmp_path, table)
    (failure,) = pq.read_table(tmp_path / done.failure_shards[0]["pending"]).to_pylist()
    assert (failure["feature"], failure["attempts"]) == ("f", 1)


def test_the_record_is_written_last_and_names_the_files(tmp_path: Path) -> None:
    table = rows(["a", "a", "b", "c"], {2: "corrupt"}, windows=[0, 1, 0, 0], absent=(3,))
    done = write(tmp_path, table)
    record = pq.read_table(tmp_path / "_runs/r/tasks/r-000000.parquet")
    assert sorted(map(tuple, (row.values() for row in record.to_pylist()))) == [
        ("a", "v", 2),
        ("b", "v", 1),
        ("c", "v", 1),
    ]
    named = json.loads(record.schema.metadata[RECORD])
    assert named == {"shards": done.shards, "failures": done.failure_shards, "empty": done.empty_shards}
    assert pq.read_table(tmp_path / done.empty_shards[0]["path"])["sample_id"].to_pylist() == ["c"]
    writer = ShardWriter(
        str(tmp_path), "x", "x", {"f": [f.name for f in FIELDS]}, SCHEMA, OutputConfig(path="x", shard_bytes=1024)
    )
    writer.add(rows(["a"] * 5000, {}))
    writer.abort()
    assert not (tmp_path / "_runs" / "x").exists()


def test_a_full_disk_is_an_error_and_publishes_nothing(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if os.system(f"mount -t tmpfs -o size=64k tmpfs {small} 2>/dev/null"):
        pytest.skip("mounting a small file system needs root")
    try:
        table = rows([f"{np.random.default_rng(i).bytes(16).hex()}" for i in range(3000)], {})
        with pytest.raises(OSError, match="No space left"):
            write(small, table)
        assert [name for name in os.listdir(small / "data") if name.endswith(".parquet")] == []
    finally:
        os.system(f"umount {small}")
