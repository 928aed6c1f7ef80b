"""Checks of the arguments with which a dataset is read: column names, filters, and the width of an embedding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core.errors import ConfigError, describe

if TYPE_CHECKING:
    import pyarrow.dataset as ds


def column_names(schema: pa.Schema, columns: Sequence[str] | None) -> list[str]:
    """Returns ``columns``, or all of ``schema`` for None. Raises ``ConfigError`` for a name that is not in it."""
    if columns is None:
        return list(schema.names)
    assert not isinstance(columns, str), "columns is a list of names"
    for name in columns:
        if name not in schema.names:
            raise ConfigError("columns", f"there is no column {name!r}", f"one of: {', '.join(schema.names)}")
    return list(columns)


def check_filter(schema: pa.Schema, names: list[str], filter: ds.Expression | None) -> None:
    """Raises ``ConfigError`` unless ``filter`` is an expression over columns of ``schema`` with values of a boolean."""
    if filter is None:
        return
    import pyarrow.dataset as ds

    try:
        ds.dataset(schema.empty_table()).scanner(columns=names, filter=filter)
    except (pa.ArrowException, TypeError) as error:
        raise ConfigError(
            "filter", describe(error), f"an expression over the columns: {', '.join(schema.names)}"
        ) from error


def check_stored_width(root: str, name: str, width: int, batches: Iterator[pa.RecordBatch]) -> None:
    """Raises ``ConfigError`` unless the first stored vector of a column has ``width`` values.

    A batch of nulls has the width that the footer gives, so a wrong footer could allocate any amount of memory.

    Args:
        root: the version's folder.
        name: the column.
        width: values in a vector, from the footer.
        batches: batches of this column only.
    """
    for batch in batches:
        lengths = pc.list_value_length(batch.column(0))
        if pc.max(lengths).as_py() is not None:
            if pc.max(lengths).as_py() == width:
                return
            break
    raise ConfigError(
        "path", f"a footer of {root!r} says {width} values in {name!r}, no row has them", "restore the shards"
    )
