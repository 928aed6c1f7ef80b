"""Pickled values in Arrow extension types run nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline import dataset
from pipeline.dataset.commit import snapshots
from pipeline.stages.reuse import ReuseColumnsStage
from tests.support import bounded

pytestmark = pytest.mark.timeout(120)


RAN = """
import os, sys, threading
import pyarrow as pa
import ray.data
from ray.data._internal.object_extensions.arrow import ArrowPythonObjectArray

class Evil:
    def __reduce__(self):
        return (os.mkdir, (sys.argv[2],))
"""


WHERE = ("top", "list", "struct", "map")
POISONS = """
import pathlib
import pyarrow.parquet as pq

def column(where, count):
    ext = ArrowPythonObjectArray.from_objects([Evil() for _ in range(count)])
    offsets = list(range(count + 1))
    return {
        "top": ext,
        "list": pa.ListArray.from_arrays(offsets, ext),
        "struct": pa.StructArray.from_arrays([ext], names=["in"]),
        "map": pa.MapArray.from_arrays(offsets, pa.array(["k"] * count), ext),
    }[where]

for where, out in zip(sys.argv[3::2], sys.argv[4::2]):
    for path in pathlib.Path(out).rglob("*.parquet"):
        table = pq.read_table(path)
        table = table.append_column("evil", column(where, len(table)))
        if "stage" in table.column_names:
            at = table.column_names.index("message")
            table = table.set_column(at, "message", column(where, len(table)))
        pq.write_table(table, path)
"""


def _poisoned(flag: Path, *datasets: str | Path) -> None:
    """Another column in every file of datasets, of a type that Ray registers, whose values run code.

    ``datasets``: where in the column, and a dataset, in turn.
    """
    bounded.run(RAN + POISONS, "", flag, *datasets)
    assert not flag.exists()


READS = """
from pipeline import dataset
from pipeline.dataset import describe as inspection, maintenance as upkeep
from pipeline.dataset.commit import snapshots
from pipeline.dataset.diff import index as state
from pipeline.dataset.shards import reader as reading
from pipeline.core.errors import TesseraError
from rich.console import Console

def tried(call):
    try:
        print("DONE", call())
    except TesseraError as error:
        print("TOLD", str(error)[:100])

for out in sys.argv[3:]:
    found = dataset.open(out)
    root, base = f"{out}/v1", snapshots.newest(f"{out}/v1")
    tried(lambda: [type(row["evil"]).__name__ for row in found.to_arrow().to_pylist()][:1])
    tried(lambda: len([row for batch in found.batches() for row in batch.to_pylist()]))
    tried(lambda: len(list(found.to_torch())))
    tried(lambda: len(list(found.to_torch(batch_size=2))))
    tried(lambda: found.failures().to_pylist())
    tried(lambda: len(found.schema))
    tried(lambda: found.lineage and None)
    tried(lambda: inspection.show(out, 5, Console(file=open(os.devnull, "w"))))
    tried(lambda: [table.num_rows for table in state.of_snapshot(root, base, state.RetryPolicy())])
    tried(lambda: list(state.to_carry(root, base)) and None)
    tried(lambda: upkeep.forget(out, ["a"])[0].removed)
    tried(lambda: upkeep.compact(out, shard_bytes=1 << 30).rewritten)
    tried(lambda: upkeep.rollback(out, 3) and None)
    tried(lambda: sorted(row["sample_id"] for row in dataset.open(out).to_arrow().to_pylist()))
    assert not os.path.exists(sys.argv[2]), "code of the dataset ran"
    print("END")
"""


def test_pickled_columns_run_nothing(out: Path, tmp_path: Path) -> None:
    flag = tmp_path / "ran"
    copies = [shutil.copytree(out, tmp_path / where / "out") for where in WHERE]
    _poisoned(flag, *(one for pair in zip(WHERE, copies, strict=True) for one in pair))
    done = bounded.run(RAN + READS, "", flag, *copies)
    assert not flag.exists()
    reported = done.out.split("END")[:-1]
    assert len(reported) == len(WHERE)
    assert all("DONE" in one for one in reported)
    assert "DONE ['bytes']" in reported[0], "values as they are stored"


@pytest.mark.parametrize("where", ["top", "list"])
def test_pickled_columns_run_nothing_in_ray(out: Path, tmp_path: Path, ray_session: Any, where: str) -> None:
    flag = tmp_path / "ran"
    _poisoned(flag, where, out)
    rows = dataset.open(str(out)).to_ray().take()
    assert not flag.exists()
    assert sorted(row["sample_id"] for row in rows) == ["a", "b", "c", "e"]
    (value,) = {type(row["evil"][0] if where == "list" else row["evil"]) for row in rows}
    assert value is bytes


def test_reused_columns_run_nothing(out: Path, tmp_path: Path) -> None:
    """The column that a new version takes over is itself one of Ray's."""
    flag = tmp_path / "ran"
    _poisoned(flag, "top", out)
    base = snapshots.newest(str(out / "v1"))
    assert base is not None

    class Feature:
        name = "f"

        def fields(self) -> list[pa.Field]:
            return [pa.field("evil", pa.large_binary())]

    table = pa.table(
        {
            "carry_file": pa.array([0], pa.int32()),
            "carry_position": pa.array([0], pa.int64()),
            "cells": pa.array([0], pa.int32()),
            "evil": pa.array([None], pa.large_binary()),
        }
    )
    features: Any = (Feature(),)
    import ray.data  # noqa: F401  # registers the type

    done = ReuseColumnsStage(str(out / "v1"), base.shards, features)(table)
    assert isinstance(done["evil"].to_pylist()[0], bytes)
    assert not flag.exists()
