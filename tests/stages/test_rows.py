"""An exception becomes a row's failure here and nowhere else; columns are added without disturbing their neighbours."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pipeline.core.errors import FAILURE_KINDS, SampleError
from pipeline.core.media import MODALITIES
from pipeline.core.schema import METERS
from pipeline.stages.rows import (
    FAILURE_TYPE,
    ROWS,
    Failure,
    add_failures,
    add_meter,
    failure,
    failure_column,
    put,
)


def _table(*failures: list[Failure]) -> pa.Table:
    return pa.table(
        {
            "sample_id": [f"s{i}" for i in range(len(failures))],
            "failures": failure_column(failures),
            "meter_decode_s": pa.array([1.0] * len(failures)),
            "last": list(range(len(failures))),
        }
    )


def _one(kind: str) -> Failure:
    return Failure("f", "file", "decode", kind, "m")


def test_a_sample_error_keeps_its_kind_and_words() -> None:
    error = SampleError("corrupt", "moov atom\nnot found")
    assert failure("f", "a.mp4", "decode", error) == Failure("f", "a.mp4", "decode", "corrupt", "moov atom not found")


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (MemoryError(), "memory", "MemoryError"),
        (MemoryError("50 GB"), "memory", "MemoryError: 50 GB"),
        (ValueError("bad\tvalue"), "internal", "ValueError: bad value"),
        (KeyError("k"), "internal", "KeyError: 'k'"),
        (OSError(5, "Input/output error"), "internal", "OSError: [Errno 5] Input/output error"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), "internal", "UnicodeDecodeError: 'utf-8' codec"),
    ],
)
def test_any_other_error_is_told_with_its_type(error: Exception, kind: str, message: str) -> None:
    reported = failure(None, None, "encode", error)
    assert (reported.feature, reported.uri, reported.stage, reported.kind) == (None, None, "encode", kind)
    assert reported.message.startswith(message)
    assert kind in FAILURE_KINDS


def test_failures_are_stored_as_structs() -> None:
    column = failure_column([[], [Failure(None, None, "probe", "missing", "gone"), _one("io")]])
    assert column.type == pa.list_(FAILURE_TYPE)
    assert column.to_pylist() == [
        [],
        [
            {"feature": None, "uri": None, "stage": "probe", "kind": "missing", "message": "gone"},
            {"feature": "f", "uri": "file", "stage": "decode", "kind": "io", "message": "m"},
        ],
    ]


def test_further_failures_stand_behind_those_before() -> None:
    table = _table([], [_one("corrupt")], [_one("empty")])
    more = add_failures(table, [[_one("nan")], [_one("io"), _one("limit")], []])
    kinds = [[one["kind"] for one in row] for row in more["failures"].to_pylist()]
    assert kinds == [["nan"], ["corrupt", "io", "limit"], ["empty"]]
    assert more.schema == table.schema
    assert more.drop_columns(["failures"]) == table.drop_columns(["failures"])


def test_a_row_whose_failures_are_null_takes_more() -> None:
    table = put(_table([], []), "failures", pa.nulls(2, pa.list_(FAILURE_TYPE)))
    more = add_failures(table, [[_one("nan")], []])
    assert [[one["kind"] for one in row] for row in more["failures"].to_pylist()] == [["nan"], []]


def test_no_failure_leaves_the_table_as_it_is() -> None:
    table = _table([_one("io")], [])
    assert add_failures(table, [[], []]) is table


def test_failures_of_another_number_of_rows_are_a_defect() -> None:
    with pytest.raises(ValueError, match="zip"):
        add_failures(_table([], []), [[_one("io")]])


def test_meters_add_up() -> None:
    table = add_meter(_table([], []), "decode_s", [0.5, 2.0])
    table = add_meter(table, "decode_s", np.array([0.25, 0.0], np.float32))
    assert table["meter_decode_s"].to_pylist() == [1.75, 3.0]
    assert table.schema.field("meter_decode_s").type == pa.float64()
    with pytest.raises(KeyError):
        add_meter(table, "no_such_meter", [0.0, 0.0])


def test_put_replaces_in_place_or_appends() -> None:
    table = _table([], [])
    replaced = put(table, "failures", pa.array([1, 2]))
    assert replaced.column_names == table.column_names
    assert replaced["failures"].to_pylist() == [1, 2]
    assert put(table, "new", pa.chunked_array([[1], [2]])).column_names == [*table.column_names, "new"]
    assert table["failures"].to_pylist() == [[], []]


def test_a_row_has_a_uri_for_each_modality_and_every_meter() -> None:
    assert {f"{modality}_uri" for modality in MODALITIES} <= set(ROWS.names)
    assert {f"meter_{name}" for name in METERS} <= set(ROWS.names)
    assert [field.name for field in ROWS if not field.nullable] == ["sample_id", "window", "source_version"]
    assert len(set(ROWS.names)) == len(ROWS.names)
