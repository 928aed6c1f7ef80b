"""Batches of hand-made columns, and how rates are compared with what they should be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.dataset.collate import Collate, Column
from pipeline.dataset.loading.place import Place

WIDTH = 2
FIELDS: dict[str, tuple[pa.DataType, str | None, bool]] = {
    "sample_id": (pa.string(), None, False),
    "number": (pa.int64(), None, False),
    "a_embedding": (pa.list_(pa.float32()), "embedding", True),
    "b_embedding": (pa.list_(pa.float32()), "embedding", True),
    "c_embedding": (pa.list_(pa.float32()), "embedding", True),
    "words_token_ids": (pa.list_(pa.int32()), "token_ids", True),
    "f_tokens": (pa.list_(pa.list_(pa.float16(), WIDTH)), "tokens", True),
    "f_grid": (pa.list_(pa.int32()), "grid", True),
}
"""Column -> type, part of a feature, whether it may be null."""


def schema(names: Sequence[str]) -> pa.Schema:
    return pa.schema([pa.field(name, FIELDS[name][0], FIELDS[name][2]) for name in names])


def collate(names: Sequence[str] = tuple(FIELDS)) -> Collate:
    return Collate({field.name: Column.of(field, FIELDS[field.name][1], None) for field in schema(names)})


def batch(**columns: Sequence[Any]) -> pa.RecordBatch:
    """Returns a record batch of some of the columns."""
    arrays = [pa.array(values, FIELDS[name][0]) for name, values in columns.items()]
    return pa.RecordBatch.from_arrays(arrays, schema=schema(list(columns)))


def grids(*shapes: tuple[int, int, int] | None, copies: int = 1) -> pa.RecordBatch:
    """Returns a batch of rows with these grids; the tokens are numbered through in each row."""
    rows = list(shapes) * copies
    tokens = [None if shape is None else [[i, 0] for i in range(int(np.prod(shape)))] for shape in rows]
    return batch(f_tokens=tokens, f_grid=[None if shape is None else list(shape) for shape in rows])


def frames(lengths: Sequence[int]) -> pa.RecordBatch:
    """Returns a batch of rows of so many audio frames."""
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    values = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(int(sum(lengths)) * WIDTH, np.float16)), WIDTH)
    return pa.RecordBatch.from_arrays([pa.ListArray.from_arrays(offsets, values)], schema=schema(["f_tokens"]))


def texts(lengths: Sequence[int], vocab_size: int, seed: int = 0) -> pa.RecordBatch:
    """Returns a batch of rows of so many random ids."""
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    ids = np.random.default_rng(seed).integers(0, vocab_size, int(sum(lengths))).astype(np.int32)
    return pa.RecordBatch.from_arrays(
        [pa.ListArray.from_arrays(offsets, pa.array(ids))], schema=schema(["words_token_ids"])
    )


def place(rows: int, epoch: int = 0, first: int = 0) -> Place:
    return Place(epoch, np.arange(first, first + rows))


def is_near(count: float, trials: float, rate: float) -> bool:
    """Returns whether a count is within five standard deviations of a binomial distribution."""
    return bool(abs(count - trials * rate) <= 5 * np.sqrt(trials * rate * (1 - rate)) + 1e-9)


def fits(counts: Any, expected: Any) -> bool:
    """Returns whether counts are those of a multinomial distribution, by Pearson's chi-squared test.

    At four standard deviations of the statistic, which Wilson and Hilferty's cube root makes nearly normal.
    """
    counts, expected = np.asarray(counts, float), np.asarray(expected, float)
    expected = expected / expected.sum() * counts.sum()
    free = len(counts) - 1
    ratio = ((counts - expected) ** 2 / expected).sum() / free
    return bool((np.cbrt(ratio) - (1 - 2 / (9 * free))) / np.sqrt(2 / (9 * free)) < 4)


def alike(one: Any, other: Any) -> bool:
    """Returns whether two counts over the same kinds are of one distribution, by the chi-squared test of homogeneity.

    Kinds that are rare in both are counted together.
    """
    one, other = np.asarray(one, float), np.asarray(other, float)
    both = one + other
    rare = both < 20
    if rare.any():
        one, other = (np.append(counts[~rare], counts[rare].sum()) for counts in (one, other))
        both = one + other
    one, other, both = one[both > 0], other[both > 0], both[both > 0]
    shares = [counts.sum() / both.sum() for counts in (one, other)]
    free = len(both) - 1
    ratio = sum(
        ((counts - both * share) ** 2 / (both * share)).sum()
        for counts, share in zip((one, other), shares, strict=True)
    )
    return bool((np.cbrt(ratio / free) - (1 - 2 / (9 * free))) / np.sqrt(2 / (9 * free)) < 4)
