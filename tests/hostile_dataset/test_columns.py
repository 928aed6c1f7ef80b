"""Footers and columns that no writer makes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from pipeline import dataset
from pipeline.dataset import describe, maintenance
from pipeline.dataset.commit import snapshots
from pipeline.dataset.diff import index
from pipeline.dataset.diff.index import RetryPolicy
from pipeline.stages.reuse import ReuseColumnsStage
from tests.dataset.shards.test_writer import FIELDS
from tests.hostile_dataset.helpers import (
    FEATURE,
    assert_reported,
    change_footer,
    console,
    newest,
    rewrite,
)
from tests.support.dataset_fixtures import RUNS, night

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize(
    ("footer", "why"),
    [
        ("{", "is not JSON"),
        (b"\xff", "is not JSON"),
        ("[" * 100_000, "is nested too deep"),
        ("[]", "is an array"),
        ('{"features": []}', "features is an array"),
        ('{"features": {"f": 3}}', "features.f is 3"),
        (json.dumps({"features": {"f": {**FEATURE, "dim": 1e10}}}), "features.f.dim is 10000000000.0"),
        (json.dumps({"features": {"f": {**FEATURE, "dim": 10**10}}}), "features.f.dim is 10000000000"),
        (json.dumps({"features": {"f": {**FEATURE, "dim": 0}}}), "features.f.dim is 0"),
        (json.dumps({"features": {"f": {**FEATURE, "dim": True}}}), "features.f.dim is True"),
        (json.dumps({"features": {"f": {**FEATURE, "token_dim": "4"}}}), "features.f.token_dim is '4'"),
        (json.dumps({"features": {"f": {**FEATURE, "token_dim": 5}}}), "column 'f_tokens' of list"),
        (json.dumps({"features": {"f": {**FEATURE, "emit": "embedding"}}}), "features.f.emit is 'embedding'"),
        (json.dumps({"features": {"f": {**FEATURE, "model": ["m"]}}}), "features.f.model is an array"),
        (json.dumps({"features": {"f": {**FEATURE, "normalized": "yes"}}}), "features.f.normalized is 'yes'"),
        (json.dumps({"features": {"f": {**FEATURE, "processor": json.loads("[" * 90 + "]" * 90)}}}), "nested too deep"),
    ],
)
def test_a_footer_that_no_writer_makes(out: Path, footer: str | bytes, why: str) -> None:
    path = change_footer(out, footer)
    found = dataset.open(str(out))
    assert_reported(lambda: found.to_torch(), path.name, why)
    assert_reported(lambda: found.collate, path.name, why)
    assert_reported(lambda: describe.show(str(out), 1, console()), why)
    if "is not JSON" in why:
        night(out / "v1", RUNS[5], ["y"])  # two shards, to be compacted
        assert_reported(lambda: maintenance.compact(str(out), shard_bytes=1 << 30), path.name, why)


@pytest.mark.parametrize("dim", [10**6, 20_000])
def test_a_width_is_believed_once_a_vector_has_it(out: Path, dim: int) -> None:
    change_footer(out, json.dumps({"features": {"f": {**FEATURE, "dim": dim}}}))
    assert_reported(lambda: dataset.open(str(out)).collate, f"says {dim} values in 'f_embedding', no row has them")


def test_a_wide_vector_that_is_there_is_good(out: Path) -> None:
    def wide(table: pa.Table) -> pa.Table:
        vectors = pa.array([np.arange(20_000, dtype=np.float32)] * len(table), pa.list_(pa.float32()))
        table = table.set_column(table.column_names.index("f_embedding"), FIELDS[0], vectors)
        return table.replace_schema_metadata(
            {b"tessera": json.dumps({"features": {"f": {**FEATURE, "dim": 20_000}}}).encode()}
        )

    rewrite(out, wide)
    (batch,) = dataset.open(str(out)).to_torch(["f_embedding"], batch_size=10)
    assert batch["f_embedding"].shape == (4, 20_000)


def test_a_row_that_cannot_be_shown(out: Path) -> None:
    rewrite(
        out, lambda table: table.append_column("odd", pa.array([b"\xff"] * len(table), pa.binary()).view(pa.string()))
    )
    assert_reported(lambda: describe.show(str(out), 3, console()), "a row cannot be shown", "give --rows 0")
    assert_reported(lambda: describe.document(str(out), 3), "a row cannot be shown", "give --rows 0")
    describe.show(str(out), 0, console())
    describe.show(str(out), 3, console(), ["sample_id"])


def test_a_window_that_begins_and_does_not_end(out: Path) -> None:
    rewrite(
        out,
        lambda table: _set("end_s", lambda n: pa.nulls(n, pa.float64()))(
            _set("start_s", lambda n: pa.array([1.0] * n))(table)
        ),
    )
    assert len(dataset.open(str(out)).to_arrow()) == 4
    shown = Console(file=io.StringIO(), width=80)
    describe.show(str(out), 1, shown)
    assert isinstance(shown.file, io.StringIO)
    assert "  start_s: 1\n  end_s: null\n" in shown.file.getvalue()


def test_vectors_of_another_length_than_the_footer_says(out: Path) -> None:
    change_footer(out, json.dumps({"features": {"f": {**FEATURE, "dim": 7}}}))
    assert_reported(
        lambda: list(dataset.open(str(out)).to_torch(batch_size=2)), "'f_embedding' holds 3 values where 7 belong"
    )


def _set(name: str, values: Callable[[int], pa.Array]) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.set_column(table.column_names.index(name), name, values(len(table)))


COLUMNS: dict[str, Callable[[pa.Table], pa.Table]] = {
    "an id that is a number": _set("sample_id", lambda n: pa.array(range(n))),
    "a window that is a string": _set("window", lambda n: pa.array(["0"] * n)),
    "a start that is a list": _set("start_s", lambda n: pa.array([[1.0]] * n)),
    "an embedding of strings": _set("f_embedding", lambda n: pa.array([["a"]] * n)),
    "an embedding that is a number": _set("f_embedding", lambda n: pa.array([1.0] * n)),
    "tokens of no width": _set("f_tokens", lambda n: pa.array([[[1.0]]] * n)),
    "a grid of floats": _set("f_grid", lambda n: pa.array([[1.0]] * n)),
    "no id": lambda table: table.drop_columns("sample_id"),
    "no window": lambda table: table.drop_columns("window"),
    "an id twice": lambda table: table.append_column("sample_id", table["sample_id"]),
}


@pytest.mark.parametrize("what", ["read", "torch", "compact", "state", "show"])
@pytest.mark.parametrize("kind", COLUMNS)
def test_columns_that_no_writer_makes(out: Path, kind: str, what: str) -> None:
    night(out / "v1", RUNS[5], ["y"])  # a good shard before the one that is changed
    rewrite(
        out,
        lambda table: COLUMNS[kind](
            table.replace_schema_metadata({b"tessera": json.dumps({"features": {"f": FEATURE}}).encode()})
        ),
    )
    base = snapshots.newest(str(out / "v1"))
    assert base is not None
    calls: dict[str, Callable[[], object]] = {
        "read": lambda: dataset.open(str(out)).to_arrow(),
        "torch": lambda: list(dataset.open(str(out)).to_torch()),
        "compact": lambda: maintenance.compact(str(out), shard_bytes=1 << 30),
        "state": lambda: list(index.of_snapshot(str(out / "v1"), base, RetryPolicy())),
        "show": lambda: describe.show(str(out), 3, console()),
    }
    good = [("compact", "an embedding of strings"), ("compact", "tokens of no width"), ("compact", "a grid of floats")]
    keys = ("no id", "no window", "an id twice", "a window that is a string")
    good += [("state", one) for one in COLUMNS if one not in keys]
    if (what, kind) in good:
        calls[what]()  # columns that are only copied, or that are not read
    else:
        assert_reported(calls[what], ".parquet")


def test_a_null_in_a_vector(out: Path) -> None:
    rewrite(out, _set("f_embedding", lambda n: pa.array([[1.0, None, 2.0]] * n, pa.list_(pa.float32()))))
    assert_reported(
        lambda: list(dataset.open(str(out)).to_torch(["f_embedding"])), "column 'f_embedding' cannot be read"
    )
    describe.show(str(out), 3, Console(file=io.StringIO()))


def test_a_shard_that_lacks_a_column_of_the_others(out: Path) -> None:
    night(out / "v1", RUNS[5], ["y"])
    first = out / "v1" / json.loads(newest(out).read_text())["shards"][0]["path"]
    pq.write_table(pq.read_table(first).drop_columns("f_embedding"), first)
    found = dataset.open(str(out))
    assert_reported(lambda: list(found.to_torch()), first.name, "0 columns 'f_embedding'")
    assert_reported(
        lambda: ReuseColumnsStage(str(out / "v1"), found.shards, ())._rows(0, np.array([0]), ["f_embedding"]),
        first.name,
    )


def test_ids_that_are_null(out: Path) -> None:
    path = rewrite(out, _set("sample_id", lambda n: pa.nulls(n, pa.string())))
    base = snapshots.newest(str(out / "v1"))
    assert base is not None
    assert_reported(
        lambda: list(index.of_snapshot(str(out / "v1"), base, RetryPolicy())), path.name, "a null in one of sample_id"
    )


@pytest.mark.parametrize("attempts", [-1, -(2**31), 2**31 - 1, None])
def test_attempts_that_nobody_made(out: Path, attempts: int | None) -> None:
    """With a negative number a failure would be tried again for ever."""
    failure = out / "v1" / json.loads(newest(out).read_text())["failures"][0]["path"]
    table = pq.read_table(failure)
    at = table.column_names.index("attempts")
    pq.write_table(table.set_column(at, "attempts", pa.array([attempts] * len(table), pa.int32())), failure)
    base = snapshots.newest(str(out / "v1"))
    assert base is not None
    assert_reported(
        lambda: list(index.of_snapshot(str(out / "v1"), base, RetryPolicy())),
        failure.name,
        "a number of attempts that no run writes",
    )


def test_nulls_where_none_may_be(out: Path) -> None:
    failure = out / "v1" / json.loads(newest(out).read_text())["failures"][0]["path"]
    table = pq.read_table(failure)
    at = table.column_names.index("source_version")
    nullable = table.schema.field(at).with_nullable(True)
    pq.write_table(table.set_column(at, nullable, pa.nulls(len(table), pa.string())), failure)
    night(out / "v1", RUNS[5], ["z"], {0: "corrupt"})  # two files, to be compacted
    assert_reported(lambda: maintenance.compact(str(out)), failure.name)


@pytest.mark.parametrize("what", ["read", "compact", "state", "show"])
def test_a_name_that_is_not_utf_8(out: Path, what: str) -> None:
    night(out / "v1", RUNS[5], ["y"])  # two files, to be compacted
    path = out / "v1" / json.loads(newest(out).read_text())["shards"][-1]["path"]
    path.write_bytes(path.read_bytes().replace(b"source_version", b"source_versi\xffn"))
    base = snapshots.newest(str(out / "v1"))
    assert base is not None
    calls: dict[str, Callable[[], object]] = {
        "read": lambda: dataset.open(str(out)).to_arrow(),
        "compact": lambda: maintenance.compact(str(out)),
        "state": lambda: list(index.of_snapshot(str(out / "v1"), base, RetryPolicy())),
        "show": lambda: describe.show(str(out), 3, console()),
    }
    assert_reported(calls[what], path.name, "'utf-8' codec can't decode")


@pytest.mark.parametrize("what", ["read", "batches", "torch", "compact", "state", "show", "failures"])
def test_a_few_bytes_that_claim_gigabytes(out: Path, what: str) -> None:
    """A dictionary of one long value, which many rows have."""
    night(out / "v1", RUNS[5], ["y"], {})
    snapshot = newest(out)
    values = json.loads(snapshot.read_text())
    part = "failures" if what == "failures" else "shards"
    one = values[part][-1]
    path = out / "v1" / one["path"]
    table, rows = pq.read_table(path).slice(0, 1), 100_000
    table = table.take(pa.array(np.zeros(rows, np.int32)))
    long = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array(["x" * (1 << 20)]))
    at = table.column_names.index("source_version")
    table = table.set_column(at, "source_version", long).replace_schema_metadata(table.schema.metadata)
    pq.write_table(table, path, compression="zstd", store_schema=False)
    one.update(rows=rows, bytes=path.stat().st_size)
    snapshot.write_text(json.dumps(values))
    base = snapshots.newest(str(out / "v1"))
    assert base is not None
    calls: dict[str, Callable[[], object]] = {
        "read": lambda: dataset.open(str(out)).to_arrow(),
        "batches": lambda: list(dataset.open(str(out)).batches(["source_version"])),
        "torch": lambda: list(dataset.open(str(out)).to_torch(["source_version"])),
        "compact": lambda: maintenance.compact(str(out)),
        "state": lambda: list(index.of_snapshot(str(out / "v1"), base, RetryPolicy())),
        "show": lambda: describe.show(str(out), 3, console()),
        "failures": lambda: dataset.open(str(out)).failures(),
    }
    before = pa.total_allocated_bytes()
    if what == "show":
        calls[what]()  # it does not read this column
    else:
        assert_reported(calls[what], path.name, "column 'source_version' of row group 1 claims ")
    assert pa.total_allocated_bytes() - before < 100 << 20


def test_a_column_that_cannot_be_filtered(out: Path) -> None:
    rewrite(out, lambda table: table.append_column("odd", pa.array(["x"] * len(table), pa.string_view())))
    assert_reported(lambda: maintenance.forget(str(out), ["a"]), ".parquet", "cannot be read")
