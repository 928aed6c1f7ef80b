"""Nested tensors have the values of the rows, and torch computes with them."""

from __future__ import annotations

import pyarrow as pa
import torch

from pipeline.dataset.collate import Collate, Column
from tests.dataset.collate.test_packed import BATCH, IDS, TOKENS, collate

__all__ = ["collate"]


def test_values_by_hand(collate: Collate) -> None:
    done = collate.jagged()(BATCH)
    assert done["ids"].layout == torch.jagged
    assert [row.tolist() for row in done["ids"].unbind()] == [ids or [] for ids in IDS]
    assert [row.tolist() for row in done["tokens"].unbind()] == [tokens or [] for tokens in TOKENS]
    assert done["tokens"].dtype == torch.float16
    assert done["ids_valid"].tolist() == [True, False, True, True, True, True]
    assert done["number"].tolist() == list(range(6))


def test_a_layer_over_all_rows() -> None:
    column = Column.of(pa.field("f_tokens", pa.list_(pa.list_(pa.float32(), 2))), "tokens", None)
    rows = [[[1.0, 2.0]], [[3.0, 4.0], [5.0, 6.0]]]
    batch = pa.table({"f_tokens": pa.array(rows, pa.list_(pa.list_(pa.float32(), 2)))})
    layer = torch.nn.Linear(2, 3)
    found = layer(Collate({"f_tokens": column}).jagged()(batch)["f_tokens"])
    for one, row in zip(found.unbind(), rows, strict=True):
        assert torch.allclose(one, layer(torch.tensor(row)))
