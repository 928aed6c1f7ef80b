"""Filters of rows: expressions of `pyarrow.compute` over the columns of a dataset.

`pyarrow.dataset` is imported only where a filter is used: it imports pandas.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    import pyarrow.dataset as ds


def needed(schema: pa.Schema, names: list[str], filter: ds.Expression | None) -> list[str]:
    """Returns ``names`` and the columns that ``filter`` reads, which are those without which it does not bind."""
    if filter is None:
        return names
    import pyarrow.dataset as ds

    empty = schema.empty_table()

    def binds(name: str) -> bool:
        try:
            ds.dataset(empty.drop_columns([name])).scanner(filter=filter)
        except (pa.ArrowException, TypeError):
            return False
        return True

    return [*names, *(name for name in schema.names if name not in names and not binds(name))]


def is_same_filter(one: ds.Expression | None, other: ds.Expression | None) -> bool:
    """Returns whether two filters are equal, also in values that their texts leave out."""
    if one is None or other is None:
        return one is other
    return bool(one.equals(other))


def kept(table: pa.Table, filter: ds.Expression, names: list[str]) -> pa.Table:
    """Returns the columns ``names`` of the rows that ``filter`` keeps."""
    import pyarrow.dataset as ds

    return ds.dataset(table).to_table(columns=names, filter=filter, use_threads=False)


def filtered(
    batches: Iterator[pa.RecordBatch], filter: ds.Expression | None, names: list[str], rows: int
) -> Iterator[pa.RecordBatch]:
    """Yields the rows of batches that ``filter`` keeps; None: the batches as they are.

    Args:
        batches: with all columns that ``filter`` reads.
        filter: an expression.
        names: the columns of the result.
        rows: largest number of rows in a batch.
    """
    for batch in batches:
        if filter is None:
            yield batch
            continue
        rest = kept(pa.Table.from_batches([batch]), filter, names)
        yield from (one for one in rest.to_batches(max_chunksize=rows) if len(one))
