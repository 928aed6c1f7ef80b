"""A filter keeps the rows that pyarrow keeps, and the columns that it reads are found."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline.dataset.shards import filters

TABLE = pa.table({"n": range(20), "even": [i % 2 == 0 for i in range(20)], "words": [f"w{i}" for i in range(20)]})


@pytest.mark.parametrize(
    ("filter", "columns"),
    [
        (None, ["words"]),
        (pc.field("words") == "w3", ["words"]),
        (pc.field("n") > 9, ["words", "n"]),
        ((pc.field("n") > 9) & pc.field("even"), ["words", "n", "even"]),
    ],
)
def test_the_columns_that_a_filter_reads(filter: pc.Expression | None, columns: list[str]) -> None:
    assert filters.needed(TABLE.schema, ["words"], filter) == columns


@pytest.mark.parametrize("rows", [1, 3, 100])
@pytest.mark.parametrize("filter", [None, pc.field("n").isin([0, 7, 14]), pc.field("n") < 0])
def test_rows_of_batches(filter: pc.Expression | None, rows: int) -> None:
    batches = list(filters.filtered(iter(TABLE.to_batches(max_chunksize=6)), filter, ["words"], rows))
    found = pa.Table.from_batches(batches, None if batches else TABLE.select(["words"]).schema)
    if filter is None:
        assert found == TABLE
    else:
        assert found == TABLE.filter(filter).select(["words"])
        assert all(0 < len(batch) <= rows for batch in batches)


def test_kept_rows() -> None:
    assert filters.kept(TABLE, pc.field("even"), ["n"])["n"].to_pylist() == list(range(0, 20, 2))
