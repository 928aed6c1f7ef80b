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


WHERE = ("top", "list", "struct", "map")


def _poisoned(flag: Path, *datasets: str | Path) -> None:
    """Another column in every file of datasets, of a type that Ray registers, whose values run code.

    ``datasets``: where in the column, and a dataset, in turn.
    """
    bounded.run("tests.hostile_dataset.programs.write_pickled_column", flag, *datasets)
    assert not flag.exists()


def test_pickled_columns_run_nothing(out: Path, tmp_path: Path) -> None:
    flag = tmp_path / "ran"
    copies = [shutil.copytree(out, tmp_path / where / "out") for where in WHERE]
    _poisoned(flag, *(one for pair in zip(WHERE, copies, strict=True) for one in pair))
    done = bounded.run("tests.hostile_dataset.programs.read_every_way", flag, *copies)
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
