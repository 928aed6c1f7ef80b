"""Rows that lack a modality are left out and counted, whatever the form of the batch."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from torch.utils.data import DataLoader

from pipeline import dataset
from pipeline.core.errors import ConfigError
from pipeline.training import ContrastiveCollate
from tests.dataset.loading import written
from tests.training.batches import batch, collate

IDS = ["x", "y", "x", "z", "x", "y"]
A: list[Any] = [[1, 2], [3, 4], None, [5, 6], [7, 8], [9, 10]]
B: list[Any] = [[1, 0], None, [2, 0], [3, 0], [4, 0], [5, 0]]
C: list[Any] = [None, None, None, [1, 1], None, [2, 2]]
BATCH = batch(sample_id=IDS, number=range(6), a_embedding=A, b_embedding=B, c_embedding=C)
PAIR = ("a_embedding", "b_embedding")


def test_rows_with_both_by_hand() -> None:
    done = ContrastiveCollate(collate(), PAIR)(BATCH)
    assert done["a_embedding"].tolist() == [[1, 2], [5, 6], [7, 8], [9, 10]]
    assert done["b_embedding"].tolist() == [[1, 0], [3, 0], [4, 0], [5, 0]]
    assert done["a_embedding_valid"].all()
    assert done["number"].tolist() == [0, 3, 4, 5]
    assert done["sample_id"] == ["x", "z", "x", "y"]
    assert done["c_embedding_valid"].tolist() == [False, True, False, True]
    assert done["left_out"].item() == 2
    assert done["left_out"].dtype == torch.int64


def test_groups_are_equal_for_equal_ids_in_all_batches() -> None:
    one = ContrastiveCollate(collate(), PAIR, same="sample_id")
    group = one(BATCH)["group"]
    assert group.dtype == torch.int64
    same = group[:, None] == group[None, :]
    ids = ["x", "z", "x", "y"]
    assert same.tolist() == [[a == b for b in ids] for a in ids]
    assert one(BATCH.slice(4, 2))["group"].tolist() == group[2:].tolist()
    by_number = ContrastiveCollate(collate(), PAIR, same="number")
    assert len(set(by_number(BATCH)["group"].tolist())) == 4


def test_rows_without_a_group_are_left_out() -> None:
    labels = pa.array(["u", "u", "u", None, "v", "u"])
    rows = BATCH.append_column("label", labels)
    columns = {**collate().columns, "label": dataset.collate.Column.of(pa.field("label", pa.string()), None, None)}
    done = ContrastiveCollate(dataset.collate.Collate(columns), PAIR, same="label")(rows)
    assert done["number"].tolist() == [0, 4, 5]
    assert done["left_out"].item() == 3
    same = done["group"][0] == done["group"]
    assert same.tolist() == [True, False, True]


def test_some_of_three_modalities() -> None:
    three = (*PAIR, "c_embedding")
    done = ContrastiveCollate(collate(), three)(BATCH)
    assert done["number"].tolist() == [3, 5]
    done = ContrastiveCollate(collate(), three, least=2)(BATCH)
    assert done["number"].tolist() == [0, 3, 4, 5]
    assert done["c_embedding"].tolist() == [[0, 0], [1, 1], [0, 0], [2, 2]]
    assert done["c_embedding_valid"].tolist() == [False, True, False, True]
    assert done["left_out"].item() == 2


@pytest.mark.parametrize("form", ["record_batch", "table", "chunks", "slice", "rows", "numpy"])
def test_any_form_of_a_batch(form: str) -> None:
    one = ContrastiveCollate(collate(BATCH.schema.names), PAIR, same="sample_id")
    table = pa.Table.from_batches([BATCH])
    value = {name: one.collate.columns[name] for name in BATCH.schema.names}
    forms: dict[str, Any] = {
        "record_batch": BATCH,
        "table": table,
        "chunks": pa.concat_tables([table.slice(0, 2), table.slice(2)]),
        "slice": pa.concat_tables([table, table]).slice(6).combine_chunks(),
        "rows": [{name: value[name].value(row[name]) for name in row} for row in BATCH.to_pylist()],
        "numpy": {name: table[name].to_numpy() for name in table.column_names},
    }
    done, expected = one(forms[form]), one(BATCH)
    assert done.keys() == expected.keys()
    for name, found in expected.items():
        assert done[name] == found if isinstance(found, list) else torch.equal(done[name], found), name


def test_batches_in_which_no_row_has_both() -> None:
    one = ContrastiveCollate(collate(), PAIR, same="sample_id")
    done = one(BATCH.slice(1, 2))
    assert len(done["a_embedding"]) == len(done["group"]) == 0
    assert done["left_out"].item() == 2
    assert one(BATCH.slice(0, 0))["left_out"].item() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": ("a_embedding",)}, "two or more different columns"),
        ({"columns": ("a_embedding", "a_embedding")}, "two or more different columns"),
        ({"columns": ("a_embedding", "d")}, "there is no column 'd'"),
        ({"columns": PAIR, "same": "d"}, "there is no column 'd'"),
        ({"columns": PAIR, "least": 1}, "least: found 1; 2 to 2"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ContrastiveCollate(collate(), **options)


def test_columns_that_were_not_read() -> None:
    with pytest.raises(ConfigError, match="'b_embedding' was not read; one of: a_embedding"):
        ContrastiveCollate(collate(), PAIR)(BATCH.select(["a_embedding"]))
    with pytest.raises(ConfigError, match="'sample_id' was not read"):
        ContrastiveCollate(collate(), PAIR, same="sample_id")(BATCH.select(PAIR))


def test_readers_and_rows_of_a_dataset(tmp_path: Path) -> None:
    """With plain pyarrow: which rows have both."""
    rows = [written.row(i) for i in range(120)]
    data = dataset.open(written.write(tmp_path, rows))
    columns = ["number", "sample_id", "photo_embedding", "words_token_ids"]
    one = ContrastiveCollate(data.collate, ("photo_embedding", "words_token_ids"), same="sample_id")
    assert pickle.loads(pickle.dumps(one)) == one
    expected = [row["number"] for row in rows if row["photo_embedding"] and row["words_token_ids"]]
    reader: Any = data.to_torch(columns, batch_size=16, shuffle=True, collate=one)
    batches = list(reader.loader(2))
    assert sorted(number for found in batches for number in found["number"].tolist()) == expected
    assert sum(int(found["left_out"]) for found in batches) == 120 - len(expected)
    single = DataLoader(data.to_torch(columns, rank=0, world_size=1), batch_size=16, collate_fn=one)
    assert [number for found in single for number in found["number"].tolist()] == expected
    kept = pc.field("photo_embedding").is_valid() & (pc.list_value_length(pc.field("words_token_ids")) > 0)
    full: Any = data.to_torch(columns, batch_size=16, shuffle=True, collate=one, filter=kept)
    assert {int(found["left_out"]) for found in full} == {0}
