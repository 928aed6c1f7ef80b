"""Finds one Arrow type for the values of a JSON column, and the first value that does not fit it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.core.errors import describe

NO_ARRAY = (pa.ArrowException, ValueError, TypeError, OverflowError)
"""Errors of `pa.array` for values that have no Arrow type, or several types."""
_KINDS = {
    bool: "a boolean",
    int: "an integer",
    float: "a number with a fraction",
    str: "a string",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


class MixedTypes(Exception):
    """A value that does not fit the values of the other lines.

    Args:
        found: what is wrong, as the rest of a sentence that begins with the line.
    """

    def __init__(self, column: str, line: int, found: str) -> None:
        super().__init__(column, line, found)
        self.column, self.line, self.found = column, line, found


def to_array(name: str, values: list[Any], lines: Sequence[int]) -> pa.Array:
    """Returns the values of a column as an Arrow array.

    Args:
        lines: the line of each value.

    Raises:
        MixedTypes: the values have no common type.
    """
    try:
        return pa.array(values)
    except NO_ARRAY as error:
        at = first_misfit(values, lambda some: pa.array(some))
        before = pa.array(values[:at]).type
        why = f"holds {kind_of(values[at])}, the lines before it {before}"
        raise MixedTypes(name, lines[at], why) from error


def concatenated(name: str, pieces: list[pa.Array], lines: list[np.ndarray]) -> pa.ChunkedArray:
    """Returns the pieces of a column, cast to the one type that holds them all.

    Args:
        lines: of each piece, the line of each value.

    Raises:
        MixedTypes: there is no such type.
    """
    kind = pieces[0].type
    for number, piece in enumerate(pieces):
        try:
            kind = _unified(kind, piece.type)
        except pa.ArrowException as error:
            values, before = piece.to_pylist(), kind
            at = first_misfit(values, partial(_unify_with, before))
            why = f"holds {kind_of(values[at])}, the lines before it {before}"
            raise MixedTypes(name, int(lines[number][at]), why) from error
    cast = []
    for number, piece in enumerate(pieces):
        try:
            cast.append(piece.cast(kind))
        except pa.ArrowException as error:
            at = first_misfit(piece.to_pylist(), partial(_cast_values, piece.type, kind))
            why = f"holds a value that is no {kind}, as others are ({describe(error)})"
            raise MixedTypes(name, int(lines[number][at]), why) from error
    return pa.chunked_array(cast, kind)


def kind_of(value: Any) -> str:
    """Returns what a JSON value is, with an article."""
    return _KINDS.get(type(value), type(value).__name__)


def first_misfit(values: list[Any], use: Callable[[list[Any]], object]) -> int:
    """Returns the index of the first value for which ``use`` fails, given all values up to it.

    ``use`` fails for the whole list, and for every list that is longer than one that it fails for.
    """

    def fails(count: int) -> bool:
        try:
            use(values[:count])
        except NO_ARRAY:
            return True
        return False

    return bisect_left(range(1, len(values)), True, key=fails)


def _unify_with(kind: pa.DataType, values: list[Any]) -> pa.DataType:
    return _unified(kind, pa.array(values).type)


def _cast_values(kind: pa.DataType, to: pa.DataType, values: list[Any]) -> pa.Array:
    return pa.array(values, kind).cast(to)


def _unified(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """Returns the type that holds the values of both. Raises ``pa.ArrowException`` if there is none."""
    schemas = [pa.schema([("x", kind)]) for kind in (one, other)]
    return pa.unify_schemas(schemas, promote_options="permissive").field("x").type
