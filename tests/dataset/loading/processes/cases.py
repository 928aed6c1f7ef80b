"""Mixtures and labelled readers, with the rows that plain pyarrow and a dict find for them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from pipeline import dataset
from pipeline.dataset.loading.torch_reader import TorchReader
from tests.dataset.loading import written
from tests.dataset.loading.test_torch_reader import BATCH

Row = dict[str, Any]
COLUMNS = ["number", "label", "score", "photo_embedding", "photo_tokens", "words_token_ids"]
"""Numbers, texts with nulls, vectors with nulls, and lists of different lengths."""
PARTS = ((0, 300), (300, 520), (520, 700))
"""The ``number`` of the first row of each dataset, and of the first row after it."""
DELETED = [0, *range(30, 41), 150, 299, 300, 301, 419, 600, 699]
WEIGHTS = (0.5, 0.3, 0.2)
EPOCH_ROWS = 30 * BATCH + 10
"""Rows of an epoch of a mixture: 30 batches, and 10 rows for the last round of 2 or 3 ranks."""


@dataclass(frozen=True, eq=False)
class Case:
    """Readers of the same rows."""

    make: Callable[..., TorchReader]
    """Takes rank, world_size, epoch and further options."""
    rows: Mapping[int, Row]
    """``number`` -> the values of each row that is read."""
    is_mixture: bool


def rows_of(batch: pa.RecordBatch) -> list[Row]:
    """Returns a batch as Python values: a collate function that worker processes can import."""
    found: list[Row] = batch.to_pylist()
    return found


def write_parts(folder: Path) -> list[str]:
    """Writes three datasets. Two rows in turn have the same ``sample_id``, with windows 0 and 1."""
    rows = [{**written.row(i), "sample_id": f"s{i // 2}", "window": i % 2} for i in range(PARTS[-1][1])]
    return [
        written.write(
            folder / str(start), rows[start:end], shards=2 + i % 2, group_rows=(16, 7, 33)[i], deleted=DELETED
        )
        for i, (start, end) in enumerate(PARTS)
    ]


def plain_rows(path: str, columns: Sequence[str] = ("sample_id", "window", *COLUMNS)) -> list[Row]:
    """Returns the rows of the first snapshot in stored order, without deleted ones, as pyarrow reads whole files."""
    snapshot = json.loads(Path(path, "v1", "_snapshots", "00000001.json").read_text())
    found = []
    for shard in snapshot["shards"]:
        table = pq.read_table(Path(path, "v1", shard["path"]), columns=list(columns), partitioning=None)
        kept = np.setdiff1d(np.arange(len(table)), shard["deleted"])
        found += table.take(kept).to_pylist()
    return found


def interleaved(ranks: Sequence[Sequence[Any]]) -> list[Any]:
    """Returns the batches of all ranks in their global order. Fails if they have different numbers of batches."""
    assert len({len(one) for one in ranks}) == 1
    return [batch for batches in zip(*ranks, strict=True) for batch in batches]


def cases(paths: Sequence[str]) -> dict[str, Case]:
    """Returns the readers of the datasets that `write_parts` wrote, by name."""
    rows = {row["number"]: row for path in paths for row in plain_rows(path)}
    by_window, by_sample = _labels(rows, ["sample_id", "window"]), _labels(rows, ["sample_id"])
    photos = pc.field("photo_embedding").is_valid()
    values = {number: {name: row[name] for name in COLUMNS} for number, row in rows.items()}
    first = {number: row for number, row in rows.items() if number < PARTS[0][1]}
    with_photo = {n: row for n, row in values.items() if n < PARTS[2][0] or row["photo_embedding"] is not None}
    return {
        "mixture": Case(_mixture(paths), values, True),
        "mixture_filtered": Case(_mixture(paths, photos), with_photo, True),
        "mixture_in_stored_order": Case(_mixture(paths, shuffle=False), values, True),
        "mixture_labelled": Case(_mixture(paths, labels=by_sample), _joined(rows, by_sample), True),
        "labels_by_window": Case(_labelled(paths[0], by_window), _joined(first, by_window), False),
        "labels_by_sample": Case(_labelled(paths[0], by_sample), _joined(first, by_sample), False),
    }


def _mixture(paths: Sequence[str], last_filter: Any = None, **of_all: Any) -> Callable[..., TorchReader]:
    def make(**options: Any) -> TorchReader:
        options = {"shuffle": True, "collate": rows_of, "epoch_rows": EPOCH_ROWS, **of_all, **options}
        sources = [
            (dataset.open(path), weight, last_filter if path == paths[-1] else None)
            for path, weight in zip(paths, WEIGHTS, strict=True)
        ]
        return dataset.mix(sources, COLUMNS, options.pop("batch_size", BATCH), **options)

    return make


def _labelled(path: str, labels: pa.Table) -> Callable[..., TorchReader]:
    def make(**options: Any) -> TorchReader:
        options = {"batch_size": BATCH, "shuffle": True, "collate": rows_of, **options}
        return dataset.open(path).to_torch(COLUMNS, labels=labels, **options)  # type: ignore[return-value]

    return make


def _labels(rows: Mapping[int, Row], keys: list[str]) -> pa.Table:
    """Returns labels of two thirds of the ids, in another order, also of ids that no row or only a deleted one has."""
    ids = {tuple(row[name] for name in keys) for row in rows.values()}
    ids |= {("s15", 0), ("s16", 1), ("none", 0), ("s1", 7)} if "window" in keys else {("s16",), ("none",)}
    some = [one for one in sorted(ids) if sum(one[0].encode()) % 3]
    shuffled = [some[i] for i in np.random.default_rng(0).permutation(len(some))]
    table = pa.table(
        {
            "class": pa.array([None if i % 11 == 0 else i for i in range(len(shuffled))], pa.int32()),
            **{name: [one[i] for one in shuffled] for i, name in enumerate(keys)},
            "name": [None if i % 5 == 0 else f"name {i}" for i in range(len(shuffled))],
            "is_new": [i % 2 == 0 for i in range(len(shuffled))],
            "boxes": pa.array([None if i % 7 == 0 else [i / 8] * (i % 3) for i in range(len(shuffled))]),
        }
    )
    return pa.concat_tables([table.slice(0, 50), table.slice(50, 7), table.slice(57)])


def _joined(rows: Mapping[int, Row], labels: pa.Table) -> dict[int, Row]:
    """Returns the rows that have a label, with its columns."""
    keys = [name for name in ("sample_id", "window") if name in labels.schema.names]
    by_key = {tuple(label[name] for name in keys): label for label in labels.to_pylist()}
    found = {}
    for number, row in rows.items():
        label = by_key.get(tuple(row[name] for name in keys))
        if label is not None:
            more = {name: value for name, value in label.items() if name not in keys}
            found[number] = {name: row[name] for name in COLUMNS} | more
    return found


def check_equal(found: Any, expected: Any) -> None:
    """Checks a batch: a dict of tensors, nested tensors and Python values."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        other = found[name]
        assert type(other) is type(value), name
        if not isinstance(value, torch.Tensor):
            assert other == value, name
            continue
        assert (other.dtype, other.layout, other.is_nested) == (value.dtype, value.layout, value.is_nested), name
        if value.is_nested:
            assert torch.equal(other.offsets(), value.offsets()), name
            other, value = other.values(), value.values()
        assert torch.equal(other, value), name
