"""Rows on their way: failures add up, meters sum, an exception becomes data with its own words."""

from __future__ import annotations

import pyarrow as pa

from pipeline.errors import SampleError
from pipeline.stages.rows import Failure, add_failures, add_meter, failure, failure_column, put


def test_exceptions_become_failures() -> None:
    assert failure("f", "u", "decode", SampleError("corrupt", "bad\nbytes")) == Failure(
        "f", "u", "decode", "corrupt", "bad bytes"
    )
    assert failure("f", None, "encode", MemoryError("no room")).kind == "memory"
    told = failure(None, None, "probe", UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"))
    assert told.kind == "internal"
    assert told.message.startswith("UnicodeDecodeError: ")


def test_failures_and_meters_add_up() -> None:
    first = Failure("f", "u", "probe", "io", "x")
    second = Failure("g", "u", "decode", "nan", "y")
    table = pa.table({"failures": failure_column([[first], []]), "meter_decode_s": [1.0, 2.0]})
    assert add_failures(table, [[], []]) is table
    more = add_failures(table, [[second], [second]])
    assert [[f["feature"] for f in row] for row in more["failures"].to_pylist()] == [["f", "g"], ["g"]]
    assert add_meter(table, "decode_s", [0.5, 0.5])["meter_decode_s"].to_pylist() == [1.5, 2.5]


def test_put_sets_or_appends() -> None:
    table = pa.table({"a": [1]})
    assert put(table, "a", pa.array([2])).to_pydict() == {"a": [2]}
    assert put(table, "b", pa.array([3])).to_pydict() == {"a": [1], "b": [3]}
