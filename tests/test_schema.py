"""The columns of a feature, as the contract lists them, readable by plain pyarrow with nulls in them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.schema import FIXED, LISTING, feature_fields


def test_columns_and_types() -> None:
    fields = feature_fields("f", ("embedding", "tokens", "prefix_tokens"), 4, "float16", "float32", True)
    assert {field.name: str(field.type) for field in fields} == {
        "f_embedding": "list<item: halffloat>",
        "f_tokens": "list<item: fixed_size_list<item: float>[4]>",
        "f_prefix_tokens": "list<item: fixed_size_list<item: float>[4]>",
        "f_grid": "list<item: int32>",
        "f_times": "list<item: double>",
    }
    ids = feature_fields("f", ("token_ids",), None, "float32", "float16", False)
    assert [field.name for field in ids] == ["f_token_ids", "f_grid"]
    assert [field.name for field in feature_fields("f", ("embedding",), 4, "float32", "float16", True)] == [
        "f_embedding"
    ]
    assert FIXED.names == ["sample_id", "window", "start_s", "end_s", "source_version", "run_id"]
    assert LISTING.names[:2] == ["sample_id", "source_version"]


def test_nulls_read_back(tmp_path: Path) -> None:
    (tokens,) = (f for f in feature_fields("f", ("tokens",), 2, "float32", "float16", False) if f.name == "f_tokens")
    values = [[[1.0, 2.0]], None, []]
    pq.write_table(pa.table({"f_tokens": pa.array(values, tokens.type)}), tmp_path / "t.parquet")
    assert pq.read_table(tmp_path / "t.parquet")["f_tokens"].to_pylist() == values
