"""Batches of an export: selected columns, plain types, values that cannot be."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import dataset, export
from pipeline.core.errors import ConfigError
from pipeline.export import FORMATS
from pipeline.export.rows import Rows
from tests.dataset.loading import written
from tests.export import exported


def test_columns_and_progress(tmp_path: Path) -> None:
    data = dataset.open(exported.write(tmp_path / "ds", 40, deleted=(3,)))
    seen: list[int] = []
    rows = Rows(data, ["label,number"], seen.append)
    found = pa.Table.from_batches(rows.batches())
    assert found.equals(data.to_arrow(["label", "number"]))
    assert seen[0] == 0
    assert seen[-1] == 39 == rows.num_rows
    with_ids = pa.Table.from_batches(rows.batches(extra=("sample_id", "label")))
    assert with_ids.column_names == ["label", "number", "sample_id"]
    assert Rows(data, [], seen.append).columns == data.schema.names


def test_parts_are_those_of_features(tmp_path: Path) -> None:
    data = dataset.open(exported.write(tmp_path / "ds", 3))
    rows = Rows(data, ["photo_embedding", "photo_tokens", "half", "words_grid"], lambda done: None)
    assert rows.parts == {"photo_embedding": "embedding", "photo_tokens": "tokens", "words_grid": "grid"}


def test_metadata_is_left_out_at_every_depth(tmp_path: Path) -> None:
    mark = {"a": "b"}
    inner = pa.field("item", pa.int32(), metadata=mark)
    kinds = [
        pa.list_(inner),
        pa.large_list(inner),
        pa.list_(pa.field("item", pa.list_(inner, 2), metadata=mark)),
        pa.struct([pa.field("x", pa.list_(inner), metadata=mark)]),
        pa.map_(pa.string(), pa.field("value", pa.int32(), metadata=mark)),
        pa.int8(),
    ]
    added = [pa.field(f"c{number}", kind, metadata=mark) for number, kind in enumerate(kinds)]
    values = ([1], [2], [[1, 2]], {"x": [3]}, [("k", 4)], 5)
    row = {**written.row(1), **{f"c{number}": value for number, value in enumerate(values)}}
    data = dataset.open(written.write(tmp_path / "ds", [row], 1, schema=pa.schema([*written.SCHEMA, *added])))
    assert "b" in str(data.schema.to_string(show_field_metadata=True))
    (batch,) = Rows(data, [], lambda done: None).batches()

    def fields(kind: pa.DataType) -> list[pa.Field]:
        own = [kind.field(i) for i in range(kind.num_fields)]
        return [*own, *(one for field in own for one in fields(field.type))]

    assert all(not one.metadata for field in batch.schema for one in [field, *fields(field.type)])
    assert [batch.column(f"c{number}").to_pylist() for number in range(6)] == [[value] for value in values]


@pytest.mark.parametrize("format", FORMATS)
def test_text_that_is_no_utf_8_is_one_line(tmp_path: Path, format: str) -> None:
    path = exported.write(tmp_path / "ds", 5, shards=1)
    (shard,) = (tmp_path / "ds" / "v1" / "data").iterdir()
    table = pq.read_table(shard)
    broken = pa.array([b"ok", b"\xff\xfe", None, b"", b"ok"]).view(pa.string())
    table = table.set_column(table.schema.get_field_index("label"), table.schema.field("label"), broken)
    pq.write_table(table, shard)
    with pytest.raises(ConfigError) as caught:
        export.export_dataset(path, str(tmp_path / "exports" / "out"), format)  # type: ignore[arg-type]
    assert "rows of" in str(caught.value)
    assert "cannot be read" in str(caught.value)
    assert str(caught.value).isprintable()
    assert list((tmp_path / "exports").iterdir()) == []
