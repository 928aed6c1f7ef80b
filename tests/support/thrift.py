"""Parquet files written by hand, so that their footers and pages may claim anything.

Thrift's compact protocol: a struct is a list of (id, type, value); types are ``i32``, ``i64``, ``binary``, ``struct``
and ``list:<type>``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_TYPES = {"i32": 5, "i64": 6, "binary": 8, "list": 9, "struct": 12}
Field = tuple[int, str, Any]

OPTIONAL, REPEATED = 1, 2
INT32, BYTE_ARRAY, FIXED = 1, 6, 7
PLAIN, RLE, DELTA_BYTE_ARRAY, RLE_DICTIONARY = 0, 3, 7, 8
ZSTD = 6


def varint(number: int) -> bytes:
    done = bytearray()
    while True:
        number, low = number >> 7, number & 0x7F
        if not number:
            return bytes([*done, low])
        done.append(low | 0x80)


def _zigzag(number: int) -> bytes:
    return varint(number << 1 if number >= 0 else -number * 2 - 1)


def struct(fields: Sequence[Field]) -> bytes:
    done, last = b"", 0
    for number, kind, value in fields:
        code = _TYPES[kind.split(":")[0]]
        done += bytes([(number - last) << 4 | code]) if 0 < number - last < 16 else bytes([code]) + _zigzag(number)
        done += _value(kind, value)
        last = number
    return done + b"\0"


def _value(kind: str, value: Any) -> bytes:
    if kind in ("i32", "i64"):
        return _zigzag(value)
    if kind == "binary":
        return varint(len(value)) + value
    if kind == "struct":
        return struct(value)
    inner = kind.removeprefix("list:")
    code = _TYPES[inner.split(":")[0]]
    head = bytes([len(value) << 4 | code]) if len(value) < 15 else bytes([0xF0 | code]) + varint(len(value))
    return head + b"".join(_value(inner, one) for one in value)


def element(name: str, kind: int | None = None, children: int | None = None, **more: int) -> list[Field]:
    """Of a schema: a column of a type, or a group of children."""
    fields: list[Field] = [] if kind is None else [(1, "i32", kind)]
    if "length" in more:
        fields.append((2, "i32", more["length"]))
    if kind is not None or "repetition" in more:
        fields.append((3, "i32", more.get("repetition", OPTIONAL)))
    fields.append((4, "binary", name.encode()))
    if children is not None:
        fields.append((5, "i32", children))
    if "converted" in more:
        fields.append((6, "i32", more["converted"]))
    return fields


def chunk(path: str, kind: int, values: int, start: int, size: int, claimed: int, **more: int) -> list[Field]:
    """A column of a row group: ``size`` bytes from ``start`` on, decompressed ``claimed``."""
    meta: list[Field] = [
        (1, "i32", kind),
        (2, "list:i32", [PLAIN, RLE, RLE_DICTIONARY]),
        (3, "list:binary", [part.encode() for part in path.split(".")]),
        (4, "i32", more.get("codec", 0)),
        (5, "i64", values),
        (6, "i64", claimed),
        (7, "i64", size),
        (9, "i64", more.get("data", start)),
    ]
    if "data" in more:
        meta.append((11, "i64", start))
    return [(2, "i64", start), (3, "struct", meta)]


def group(chunks: list[list[Field]], rows: int) -> list[Field]:
    return [(1, "list:struct", chunks), (2, "i64", 1), (3, "i64", rows)]


def page(kind: int, data: bytes, uncompressed: int, values: int, encoding: int, disguise: int = 0) -> bytes:
    """A page of ``data``: 0, of values; 2, a dictionary.

    Args:
        disguise: is added to its type and its encoding. A multiple of 2**31 is cut off by Thrift's parser in C++.
    """
    encoding += disguise
    head: list[Field] = [(1, "i32", kind + disguise), (2, "i32", uncompressed), (3, "i32", len(data))]
    inner: list[Field] = [(1, "i32", values), (2, "i32", encoding)]
    if kind == 0:
        head.append((5, "struct", [*inner, (3, "i32", RLE), (4, "i32", RLE)]))
    else:
        head.append((7, "struct", inner))
    return struct(head) + data


def file(
    schema: list[list[Field]], rows: int, groups: list[list[Field]], body: bytes = b"", **metadata: bytes
) -> bytes:
    """A Parquet file: ``PAR1``, ``body`` from byte 4 on, and this footer."""
    fields: list[Field] = [(1, "i32", 2), (2, "list:struct", schema), (3, "i64", rows), (4, "list:struct", groups)]
    if metadata:
        fields.append((5, "list:struct", [[(1, "binary", k.encode()), (2, "binary", v)] for k, v in metadata.items()]))
    footer = struct(fields)
    return b"PAR1" + body + footer + len(footer).to_bytes(4, "little") + b"PAR1"
