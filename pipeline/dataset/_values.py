"""Formats stored values for a terminal and for JSON."""

from __future__ import annotations

import datetime

import pyarrow as pa

from pipeline.core.arrow import is_list, plain_value
from pipeline.core.terminal import count, json_text

_SHOWN_VALUES = 4
"""Of a longer list, only the first values and the length are shown."""
_SHOWN_CHARACTERS = 160
"""Of a longer text, only both ends and the length are shown."""


def cell_text(name: str, scalar: pa.Scalar) -> str:
    """Returns the text for a column of a sample row. Ids are not shortened, so that they can be copied."""
    return f'"{scalar.as_py()}"' if name == "sample_id" and scalar.is_valid else _short(scalar)


def _short(scalar: pa.Scalar, digits: int = 10) -> str:
    """Returns a short text for a stored value: ``[0.0123, -0.4, …] 512 x float32``, ``196 x 768 float16``, ``null``.

    Args:
        digits: significant digits of float64 values.
    """
    if not scalar.is_valid:
        return "null"
    kind = scalar.type
    if is_list(kind):
        return _short_list(scalar.values, kind.value_type)
    value = plain_value(scalar)
    if isinstance(value, str):
        return _short_text(value, '"')
    if isinstance(value, bytes):
        return count(len(value), "byte")
    if isinstance(value, float):
        return f"{value:.{digits if pa.types.is_float64(kind) else 4}g}"
    return _short_text(json_text(value))


def _short_list(values: pa.Array, kind: pa.DataType) -> str:
    """Returns the first values of a list, its length and the name of its value type ``kind``."""
    if pa.types.is_fixed_size_list(kind) and not pa.types.is_nested(kind.value_type):
        return f"{len(values)} x {kind.list_size} {_dtype(kind.value_type)}"
    kept = values if len(values) <= _SHOWN_VALUES else values.slice(0, _SHOWN_VALUES // 2)
    parts = [_short(one, digits=6) for one in kept] + (["…"] if len(kept) < len(values) else [])
    return f"[{', '.join(parts)}] {len(values)} x {_dtype(kind)}"


def _dtype(kind: pa.DataType) -> str:
    """Returns numpy's name of a type: ``float16``, not ``halffloat``."""
    if pa.types.is_floating(kind):
        return f"float{kind.bit_width}"
    return "list" if is_list(kind) else _short_text(str(kind))


def _short_text(text: str, quote: str = "") -> str:
    """Returns ``text`` in quotes, or both ends of it and its length."""
    if len(text) <= _SHOWN_CHARACTERS:
        return f"{quote}{text}{quote}"
    half = _SHOWN_CHARACTERS // 2
    return f"{quote}{text[:half]}…{text[-half:]}{quote} ({len(text)} characters)"


def time_text(created: str) -> str:
    """Returns the time of a snapshot in UTC, to the second."""
    try:
        utc = datetime.datetime.fromisoformat(created).astimezone(datetime.UTC)
    except OverflowError:  # before the year 1
        return created
    return f"{utc:%Y-%m-%d %H:%M:%S}"
