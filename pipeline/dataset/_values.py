"""Values of a sample row, short enough for a terminal."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from pipeline.core.terminal import count, json_text

_SHOWN_VALUES = 4
"""A list of more values is shown by its first ones and its length."""
_SHOWN_TEXT = 160
"""Characters; a longer text is shown by its two ends and its length."""


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _value(scalar: pa.Scalar) -> Any:
    """Returns a stored value as plain Python: lists whole, times as text in their full resolution."""
    if not scalar.is_valid:
        return None
    kind = scalar.type
    if _is_list(kind):
        inner = kind.value_type
        while _is_list(inner):
            inner = inner.value_type
        if pa.types.is_primitive(inner) and not pa.types.is_temporal(inner):
            return scalar.values.to_pylist()
        return [_value(one) for one in scalar.values]
    if pa.types.is_struct(kind):
        return {kind.field(i).name: _value(scalar[i]) for i in range(kind.num_fields)}
    if pa.types.is_temporal(kind):
        try:
            return scalar.cast(pa.string()).as_py()
        except pa.ArrowException:  # of no text
            return str(scalar.value)
    return scalar.as_py()


def _cell(name: str, scalar: pa.Scalar) -> str:
    """Returns the text of a column of a sample row. An id stays whole, so that it can be copied."""
    return f'"{scalar.as_py()}"' if name == "sample_id" and scalar.is_valid else _short(scalar)


def _short(scalar: pa.Scalar, digits: int = 10) -> str:
    """Returns a stored value in few words: ``[0.0123, -0.4, …] 512 x float32``, ``196 x 768 float16``, ``null``.

    Args:
        digits: of numbers in double precision.
    """
    if not scalar.is_valid:
        return "null"
    kind = scalar.type
    if _is_list(kind):
        return _short_list(scalar.values, kind.value_type)
    value = _value(scalar)
    if isinstance(value, str):
        return _short_text(value, '"')
    if isinstance(value, bytes):
        return count(len(value), "byte")
    if isinstance(value, float):
        return f"{value:.{digits if pa.types.is_float64(kind) else 4}g}"
    return _short_text(json_text(value))


def _short_list(values: pa.Array, kind: pa.DataType) -> str:
    if pa.types.is_fixed_size_list(kind) and not pa.types.is_nested(kind.value_type):
        return f"{len(values)} x {kind.list_size} {_dtype(kind.value_type)}"
    kept = values if len(values) <= _SHOWN_VALUES else values.slice(0, _SHOWN_VALUES // 2)
    parts = [_short(one, digits=6) for one in kept] + (["…"] if len(kept) < len(values) else [])
    return f"[{', '.join(parts)}] {len(values)} x {_dtype(kind)}"


def _dtype(kind: pa.DataType) -> str:
    """Returns the name of a type as numpy has it: ``float16``, not ``halffloat``."""
    if pa.types.is_floating(kind):
        return f"float{kind.bit_width}"
    return "list" if _is_list(kind) else _short_text(str(kind))


def _short_text(text: str, quote: str = "") -> str:
    """Returns ``text``, or its two ends and its length."""
    if len(text) <= _SHOWN_TEXT:
        return f"{quote}{text}{quote}"
    most = _SHOWN_TEXT // 2
    return f"{quote}{text[:most]}…{text[-most:]}{quote} ({len(text)} characters)"
