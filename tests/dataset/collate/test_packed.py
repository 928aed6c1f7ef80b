"""Packed batches equal a loop over the rows, and attention over them equals attention over each row."""

from __future__ import annotations

import itertools
import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.core.errors import ConfigError
from pipeline.dataset.collate import Collate, Column

IDS: list[Any] = [[1, 2], None, [3, 4, 5], [], [6], [7, 8, 9, 10]]
TOKENS: list[Any] = [None if ids is None else [[i, i + 0.5] for i in ids] for ids in IDS]
SCHEMA = pa.schema(
    [
        pa.field("ids", pa.list_(pa.int32())),
        pa.field("tokens", pa.list_(pa.list_(pa.float16(), 2))),
        pa.field("number", pa.int64(), nullable=False),
    ]
)
BATCH = pa.table({"ids": IDS, "tokens": TOKENS, "number": range(6)}, schema=SCHEMA)


@pytest.fixture
def collate() -> Collate:
    parts = {"ids": "token_ids", "tokens": "tokens"}
    return Collate({field.name: Column.of(field, parts.get(field.name), None) for field in SCHEMA})


def test_one_sequence_by_hand(collate: Collate) -> None:
    done = collate.packed()(BATCH)
    assert done["ids"].tolist() == list(range(1, 11))
    assert done["ids"].dtype == torch.int32
    assert done["ids_cu_seqlens"].tolist() == [0, 2, 2, 5, 5, 6, 10]
    assert done["ids_cu_seqlens"].dtype == torch.int32
    assert done["ids_max_seqlen"] == 4
    assert done["ids_position_ids"].tolist() == [0, 1, 0, 1, 2, 0, 0, 1, 2, 3]
    assert done["ids_document_ids"].tolist() == [0, 0, 2, 2, 2, 4, 5, 5, 5, 5]
    assert done["ids_valid"].tolist() == [True, False, True, True, True, True]
    assert done["tokens"].tolist() == [[i, i + 0.5] for i in range(1, 11)]
    assert done["tokens"].dtype == torch.float16
    assert done["number"].tolist() == list(range(6))


def test_sequences_of_a_length_by_hand(collate: Collate) -> None:
    done = collate.packed(5)(BATCH)
    assert done["ids"].tolist() == [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]]
    done = collate.packed(6)(BATCH)
    assert done["ids"].tolist() == [[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 0, 0]]
    assert done["ids_document_ids"].tolist() == [[0, 0, 2, 2, 2, 4], [5, 5, 5, 5, -1, -1]]
    assert done["ids_position_ids"].tolist() == [[0, 1, 0, 1, 2, 0], [0, 1, 2, 3, 0, 0]]
    assert done["ids_cu_seqlens"].tolist() == [0, 2, 5, 6, 10, 12]
    assert done["ids_max_seqlen"] == 4
    assert done["tokens"].shape == (2, 6, 2)


def test_rows_that_are_too_long(collate: Collate) -> None:
    with pytest.raises(ConfigError, match="length: 3, but a row of 'ids' has 4 values; 4, or long='cut'"):
        collate.packed(3)(BATCH)
    done = collate.packed(3, "cut")(BATCH)
    assert done["ids"].tolist() == [[1, 2, 0], [3, 4, 5], [6, 0, 0], [7, 8, 9]]
    with pytest.raises(ConfigError, match="length: found 0"):
        collate.packed(0)


@pytest.mark.parametrize("length", [None, 9, 16])
def test_attention_over_documents_equals_attention_over_each(collate: Collate, length: int | None) -> None:
    """The mask of equal documents, as `flex_attention` takes it, and the bounds, as `varlen_attn` does."""
    rng = np.random.default_rng(0)
    rows = [rng.standard_normal((n, 2)).astype(np.float16).tolist() for n in rng.integers(1, 10, 30)]
    done = collate.packed(length)(pa.table({"tokens": rows}, schema=pa.schema([SCHEMA.field("tokens")])))
    values = done["tokens"].reshape(-1, 2).float()
    documents = done["tokens_document_ids"].reshape(-1)
    place = torch.arange(len(values)) // (length or len(values))
    same = (documents[:, None] == documents[None]) & (place[:, None] == place[None])
    found = torch.nn.functional.scaled_dot_product_attention(values[None], values[None], values[None], same[None])[0]
    bounds = done["tokens_cu_seqlens"].tolist()
    seen = 0
    for start, end in itertools.pairwise(bounds):
        if documents[start] < 0:
            continue
        one = torch.tensor(rows[int(documents[start])])
        assert torch.equal(values[start:end], one)
        expected = torch.nn.functional.scaled_dot_product_attention(one[None], one[None], one[None])[0]
        assert torch.allclose(found[start:end], expected, atol=1e-6)
        assert done["tokens_position_ids"].reshape(-1)[start:end].tolist() == list(range(end - start))
        seen += 1
    assert seen == 30


def test_rows_and_empty_batches(collate: Collate) -> None:
    rows = [{name: values[i] for name, values in collate.columns_of(BATCH)} for i in range(6)]
    for name, value in collate.packed(6)(rows).items():
        expected = collate.packed(6)(BATCH)[name]
        assert torch.equal(value, expected) if isinstance(value, torch.Tensor) else value == expected
    empty = collate.packed(6)(BATCH.slice(0, 0))
    assert (tuple(empty["ids"].shape), empty["ids_cu_seqlens"].tolist(), empty["ids_max_seqlen"]) == ((0, 6), [0], 0)
    nulls = collate.packed()(BATCH.slice(1, 1))
    assert (nulls["ids"].tolist(), nulls["ids_cu_seqlens"].tolist()) == ([], [0, 0])
    assert pickle.loads(pickle.dumps(collate.packed(4))).length == 4
