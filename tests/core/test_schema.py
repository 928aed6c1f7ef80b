"""The stored columns are those of the contract, and other readers return their values."""

from __future__ import annotations

from pathlib import Path

import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core.media import MODALITIES
from pipeline.core.schema import CONTRACT, FAILURES, FIXED, LISTING, METERS, ROLES, column, feature_fields
from tests.support import duck

ALL = ("embedding", "tokens", "prefix_tokens", "token_ids")


def test_columns_of_every_row() -> None:
    assert {field.name: (str(field.type), field.nullable) for field in FIXED} == {
        "sample_id": ("string", False),
        "window": ("int32", False),
        "start_s": ("double", True),
        "end_s": ("double", True),
        "source_version": ("string", False),
        "run_id": ("string", False),
    }
    assert FAILURES.names == [
        *("sample_id", "window", "source_version", "feature", "uri", "stage", "kind", "message", "attempts"),
        *("row_written", "run_id"),
    ]
    assert [field.name for field in FAILURES if field.nullable] == ["feature", "uri"]
    assert CONTRACT == 2
    assert len(set(METERS)) == len(METERS)


def test_a_listing_has_a_uri_for_each_role() -> None:
    assert set(ROLES) == {*MODALITIES, "other"}
    assert LISTING.names == [
        "sample_id",
        "source_version",
        *(f"{role}_uri" for role in ROLES),
        "inline_text",
        "forbidden",
        "refused",
    ]


@pytest.mark.parametrize(
    ("emit", "timed", "expected"),
    [
        (("embedding",), True, {"f_embedding": "list<item: float>"}),
        (
            ("tokens",),
            True,
            {
                "f_tokens": "list<item: fixed_size_list<item: halffloat>[2]>",
                "f_grid": "list<item: int32>",
                "f_times": "list<item: double>",
            },
        ),
        (("prefix_tokens",), True, {"f_prefix_tokens": "list<item: fixed_size_list<item: halffloat>[2]>"}),
        (("token_ids",), False, {"f_token_ids": "list<item: int32>", "f_grid": "list<item: int32>"}),
    ],
)
def test_columns_of_a_feature(emit: tuple[str, ...], timed: bool, expected: dict[str, str]) -> None:
    fields = feature_fields("f", emit, 2, "float32", "float16", timed)
    assert {field.name: str(field.type) for field in fields} == expected
    assert all(field.nullable for field in fields)


def test_dtypes_are_as_asked() -> None:
    by_name = {field.name: field.type for field in feature_fields("f", ALL, 3, "float16", "float32", True)}
    assert by_name["f_embedding"].value_type == pa.float16()
    assert by_name["f_tokens"].value_type == by_name["f_prefix_tokens"].value_type == pa.list_(pa.float32(), 3)
    assert set(by_name) == {column("f", part) for part in (*ALL, "grid", "times")}


def test_tokens_without_a_width_are_a_defect() -> None:
    with pytest.raises(AssertionError):
        feature_fields("f", ("tokens",), None, "float32", "float16", True)
    assert len(feature_fields("f", ("embedding",), None, "float32", "float16", True)) == 1


def test_parquet_readers_give_the_values_back(tmp_path: Path) -> None:
    """Contains nulls, empty lists and fixed-size lists inside lists, as in a real shard."""
    fields = feature_fields("f", ALL, 2, "float32", "float32", True)
    rows = [
        {
            "f_embedding": [0.5, -1.0, 2.0],
            "f_tokens": [[1.0, 2.0], [3.0, 4.0]],
            "f_prefix_tokens": [],
            "f_token_ids": [7, 9],
            "f_grid": [2, 1, 1],
            "f_times": [0.0, 0.25],
        },
        {field.name: None for field in fields},
    ]
    path = str(tmp_path / "x.parquet")
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(fields)), path)
    assert pq.read_schema(path).equals(pa.schema(fields))
    assert pq.read_table(path).to_pylist() == rows
    assert polars.read_parquet(path).to_dicts() == rows
    columns, found = duck.query(f"select * from '{path}'")
    reported = [dict(zip(columns, row, strict=True)) for row in found]
    assert [{name: _lists(value) for name, value in row.items()} for row in reported] == rows


def _lists(value: object) -> object:
    return [_lists(item) for item in value] if isinstance(value, list | tuple) else value
