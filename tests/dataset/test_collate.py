"""Rows and batches as tensors: padding, masks, validity of nulls, and views of Arrow's memory instead of copies."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.core.errors import ConfigError
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


def test_a_batch_that_is_mostly_padding_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """One row may have thousands of tokens, although the file is small."""
    monkeypatch.setattr("pipeline.dataset.collate.MAX_PADDED_BYTES", 1 << 16)
    column = Column("matrix", "float16", 8, True)
    one, long = torch.zeros(1, 8, dtype=torch.float16), torch.zeros(100, 8, dtype=torch.float16)
    with pytest.raises(ConfigError, match=r"batch_size: 64 rows of 'f' take 102400 bytes, .* and hold 2608; smaller"):
        column.stack("f", [long, *[one] * 63])
    assert column.stack("f", [long, *[one] * 30])["f"].shape == (31, 100, 8)  # below MAX_PADDED_BYTES
    assert column.stack("f", [long] * 90)["f"].shape == (90, 100, 8)  # large, but without padding
