"""Rows and batches as tensors: padding, masks, validity of nulls, and views of Arrow's memory instead of copies."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.dataset.collate import Collate, Column

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("window", pa.int32(), nullable=False),
        pa.field("end_s", pa.float64()),
        pa.field("done", pa.bool_()),
        pa.field("f_embedding", pa.list_(pa.float32())),
        pa.field("f_tokens", pa.list_(pa.list_(pa.float16(), 2))),
        pa.field("f_token_ids", pa.list_(pa.int32())),
        pa.field("f_grid", pa.list_(pa.int32())),
        pa.field("tags", pa.list_(pa.string())),
    ]
)
ROWS: list[dict[str, Any]] = [
    {
        "id": "a",
        "window": 0,
        "end_s": None,
        "done": True,
        "f_embedding": [1, 2, 3],
        "f_tokens": [[1, 2], [3, 4]],
        "f_token_ids": [5],
        "f_grid": [2, 1, 1],
        "tags": ["x"],
    },
    {
        "id": None,
        "window": 1,
        "end_s": 0.5,
        "done": None,
        "f_embedding": None,
        "f_tokens": None,
        "f_token_ids": None,
        "f_grid": None,
        "tags": None,
    },
    {
        "id": "c",
        "window": 2,
        "end_s": 1.5,
        "done": False,
        "f_embedding": [4, 5, 6],
        "f_tokens": [[5, 6]],
        "f_token_ids": [],
        "f_grid": [1, 1, 1],
        "tags": [],
    },
]
TABLE = pa.Table.from_pylist(ROWS, schema=SCHEMA)


@pytest.fixture
def collate() -> Collate:
    parts = {f"f_{part}": part for part in ("embedding", "tokens", "token_ids", "grid")}
    return Collate({field.name: Column.of(field, parts.get(field.name), 3) for field in SCHEMA})


def plain(batch: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value if isinstance(value, list) else (value.tolist(), str(value.dtype)) for name, value in batch.items()
    }


EXPECTED = {
    "id": ["a", None, "c"],
    "window": ([0, 1, 2], "torch.int32"),
    "end_s": ([0.0, 0.5, 1.5], "torch.float64"),
    "end_s_valid": ([False, True, True], "torch.bool"),
    "done": ([True, False, False], "torch.bool"),
    "done_valid": ([True, False, True], "torch.bool"),
    "f_embedding": ([[1, 2, 3], [0, 0, 0], [4, 5, 6]], "torch.float32"),
    "f_embedding_valid": ([True, False, True], "torch.bool"),
    "f_tokens": ([[[1, 2], [3, 4]], [[0, 0], [0, 0]], [[5, 6], [0, 0]]], "torch.float16"),
    "f_tokens_mask": ([[True, True], [False, False], [True, False]], "torch.bool"),
    "f_tokens_valid": ([True, False, True], "torch.bool"),
    "f_token_ids": ([[5], [0], [0]], "torch.int32"),
    "f_token_ids_mask": ([[True], [False], [False]], "torch.bool"),
    "f_token_ids_valid": ([True, False, True], "torch.bool"),
    "f_grid": ([[2, 1, 1], [0, 0, 0], [1, 1, 1]], "torch.int32"),
    "f_grid_valid": ([True, False, True], "torch.bool"),
    "tags": [["x"], None, []],
}


def test_by_hand_from_every_kind_of_batch(collate: Collate) -> None:
    rows = [{name: column[i] for name, column in dict(collate.columns_of(TABLE)).items()} for i in range(3)]
    chunked = pa.concat_tables([TABLE.slice(0, 1), TABLE.slice(1, 2)])
    (record_batch,) = TABLE.to_batches()
    for batch in (TABLE, chunked, record_batch, rows):
        assert plain(collate(batch)) == EXPECTED
    assert plain(pickle.loads(pickle.dumps(collate))(TABLE)) == EXPECTED


def loop(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the batch of rows, made row by row."""
    batch: dict[str, Any] = {"id": [row["id"] for row in rows], "tags": [row["tags"] for row in rows]}
    for name in ("window", "end_s", "done"):
        field = SCHEMA.field(name)
        batch[name] = torch.tensor([row[name] or 0 for row in rows], dtype=getattr(torch, DTYPES[name]))
        if field.nullable:
            batch[f"{name}_valid"] = torch.tensor([row[name] is not None for row in rows], dtype=torch.bool)
    for name in ("f_embedding", "f_grid", "f_tokens", "f_token_ids"):
        tail = (2,) if name == "f_tokens" else ()
        is_vector = name in ("f_embedding", "f_grid")
        length = 3 if is_vector else max((len(row[name] or ()) for row in rows), default=0)
        batch[name] = torch.zeros(len(rows), length, *tail, dtype=getattr(torch, DTYPES[name]))
        mask = torch.zeros(len(rows), length, dtype=torch.bool)
        for i, row in enumerate(rows):
            for j, value in enumerate(row[name] or ()):
                batch[name][i, j] = torch.tensor(value, dtype=batch[name].dtype)
                mask[i, j] = True
        if not is_vector:
            batch[f"{name}_mask"] = mask
        batch[f"{name}_valid"] = torch.tensor([row[name] is not None for row in rows], dtype=torch.bool)
    return batch


DTYPES = {
    "window": "int32",
    "end_s": "float64",
    "done": "bool",
    "f_embedding": "float32",
    "f_tokens": "float16",
    "f_token_ids": "int32",
    "f_grid": "int32",
}


def random_rows(count: int, seed: int, nulls: bool) -> list[dict[str, Any]]:
    """Returns rows of `SCHEMA`."""
    rng = np.random.default_rng(seed)

    def maybe(value: Any) -> Any:
        return None if nulls and rng.random() < 0.3 else value

    return [
        {
            "id": maybe(f"s{i}"),
            "window": i,
            "end_s": maybe(float(rng.random())),
            "done": maybe(bool(rng.random() < 0.5)),
            "f_embedding": maybe(rng.standard_normal(3).astype(np.float32).tolist()),
            "f_tokens": maybe(rng.standard_normal((rng.integers(0, 6), 2)).astype(np.float16).tolist()),
            "f_token_ids": maybe(rng.integers(0, 99, rng.integers(0, 9)).tolist()),
            "f_grid": maybe(rng.integers(0, 9, 3).tolist()),
            "tags": maybe(["a"] * int(rng.integers(0, 3))),
        }
        for i in range(count)
    ]


@pytest.mark.parametrize("count", [0, 1, 2, 40])
@pytest.mark.parametrize("nulls", [True, False])
def test_it_equals_a_loop_over_the_rows(collate: Collate, count: int, nulls: bool) -> None:
    for seed in range(5):
        rows = random_rows(count, seed, nulls)
        table = pa.Table.from_pylist(rows, schema=SCHEMA)
        assert plain(collate(table)) == plain(loop(rows))


def test_rows_of_equal_lengths_are_not_copied(collate: Collate) -> None:
    rows = [{**ROWS[0], "f_tokens": [[1, 2], [3, 4]]} for _ in range(4)]
    (batch,) = pa.Table.from_pylist(rows, schema=SCHEMA).to_batches()
    done = collate(batch)
    for name in ("f_tokens", "f_embedding"):
        values = batch.column(name).values
        buffer = (values.values if name == "f_tokens" else values).buffers()[1]
        assert done[name].data_ptr() == buffer.address


def test_numpy_columns_as_engines_make_them(collate: Collate) -> None:
    def ragged(*values: Any) -> np.ndarray:
        column = np.empty(len(values), object)
        column[:] = values
        return column

    tokens = np.array([[1, 2], [3, 4]], np.float16)
    nested = ragged(np.array([5, 6], np.float16))
    batch = {
        "window": np.array([0, 1, 2]),
        "end_s": np.array([np.nan, 0.5, 1.5]),
        "f_tokens": ragged(tokens, None, nested),
        "f_embedding": ragged([1, 2, 3], None, np.array([4, 5, 6.0])),
        "tags": ragged(["x"], None, []),
    }
    done = plain(collate(batch))
    assert done == {name: value for name, value in EXPECTED.items() if name in done}
    assert {"window", "end_s_valid", "f_tokens_mask", "f_embedding", "tags"} <= set(done)


def test_slices_keep_their_rows(collate: Collate) -> None:
    for start in range(3):
        for count in range(4 - start):
            done = collate(TABLE.slice(start, count).select(["f_tokens", "f_embedding"]))
            for i in range(count):
                expected = ROWS[start + i]
                assert done["f_tokens"][i][done["f_tokens_mask"][i]].tolist() == (expected["f_tokens"] or [])
                assert done["f_embedding"][i].tolist() == (expected["f_embedding"] or [0, 0, 0])


def test_vectors_that_begin_later_in_their_memory(collate: Collate) -> None:
    vectors = pa.array([[9, 9], [1, 2], [3, 4]], pa.list_(pa.float16(), 2)).slice(1)
    batch = pa.table({"f_tokens": pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), vectors)})
    assert collate(batch)["f_tokens"].tolist() == [[[1, 2]], [[3, 4]]]


def test_a_batch_of_nulls_keeps_its_widths(collate: Collate) -> None:
    done = collate(TABLE.slice(1, 1))
    assert tuple(done["f_embedding"].shape) == (1, 3)
    assert tuple(done["f_tokens"].shape) == (1, 0, 2)
    assert tuple(done["f_grid"].shape) == (1, 3)
    assert tuple(collate(TABLE.slice(0, 0))["f_tokens"].shape) == (0, 0, 2)


def test_tensors_are_views_of_writable_memory(collate: Collate, tmp_path: Any) -> None:
    import pyarrow.parquet as pq

    pq.write_table(TABLE, tmp_path / "x.parquet")
    (batch,) = pq.read_table(tmp_path / "x.parquet").to_batches()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokens = dict(collate.columns_of(batch))["f_tokens"]
    values = batch.column("f_tokens").values.values
    first = values.buffers()[1].address
    assert [t.data_ptr() for t in tokens if t is not None] == [first, first + 2 * 2 * 2]
    tokens[0][0, 0] = 9
    assert values[0].as_py() == 9


def test_read_only_memory_is_copied(collate: Collate) -> None:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA) as writer:
        writer.write_table(TABLE)
    frozen = pa.py_buffer(bytes(sink.getvalue()))
    (batch,) = pa.ipc.open_stream(frozen).read_all().to_batches()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (tokens, *_) = dict(collate.columns_of(batch))["f_tokens"]
    tokens[0, 0] = 9
    assert batch.column("f_tokens").values.values[0].as_py() == 1
