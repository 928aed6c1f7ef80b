"""`datasets`: metadata of somebody else's files has no effect, columns without a type, bars."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import export
from pipeline.core.errors import ConfigError
from pipeline.export import ShardLimits
from pipeline.export.formats.datasets import _shards
from tests.dataset.loading import written
from tests.export import exported


def test_metadata_of_the_files_has_no_effect(tmp_path: Path) -> None:
    """`datasets` would take the column for pictures, and copy the local files that it names."""
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"precious")
    image = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
    features = {"info": {"features": {"picture": {"_type": "Image"}}}}
    schema = pa.schema([*written.SCHEMA, pa.field("picture", image)], {b"huggingface": json.dumps(features).encode()})
    rows = [{**written.row(1), "picture": {"bytes": None, "path": str(secret)}}]
    path = written.write(tmp_path / "ds", rows, 1, schema=schema)
    for shard in (tmp_path / "ds" / "v1" / "data").iterdir():  # `written` has its own metadata
        table = pq.read_table(shard)
        metadata = {**table.schema.metadata, b"huggingface": json.dumps(features).encode()}
        pq.write_table(table.replace_schema_metadata(metadata), shard)
    out = tmp_path / "out"
    export.export_dataset(path, str(out), "datasets")
    import datasets

    (found,) = datasets.load_from_disk(str(out)).with_format("arrow")[:]["picture"].to_pylist()
    assert found == {"bytes": None, "path": str(secret)}
    assert all(b"precious" not in one.read_bytes() for one in out.iterdir())


def test_a_column_that_has_no_type(tmp_path: Path) -> None:
    schema = pa.schema([*written.SCHEMA, pa.field("map", pa.map_(pa.string(), pa.int32()))])
    path = written.write(tmp_path / "ds", [{**written.row(1), "map": [("a", 1)]}], 1, schema=schema)
    with pytest.raises(ConfigError, match=r"--format: datasets cannot store the rows .*; other --columns"):
        export.export_dataset(path, str(tmp_path / "exports" / "out"), "datasets")
    assert list((tmp_path / "exports").iterdir()) == []
    export.export_dataset(path, str(tmp_path / "wds"), "webdataset", ["map"])
    assert exported.samples(str(tmp_path / "wds"))[0]["json"]["map"] == [["a", 1]]


def test_the_library_shows_no_bars_and_gets_them_back(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import datasets

    path = exported.write(tmp_path / "ds", 30)
    for is_disabled in (False, True):
        (datasets.disable_progress_bars if is_disabled else datasets.enable_progress_bars)()
        export.export_dataset(path, str(tmp_path / f"out{is_disabled}"), "datasets")
        assert datasets.are_progress_bars_disabled() is is_disabled
    datasets.enable_progress_bars()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("rows", "size", "limits", "expected"),
    [
        (0, 100, ShardLimits(), 1),
        (10, 100, ShardLimits(3), 4),
        (10, 100, ShardLimits(bytes=30), 4),
        (10, 100, ShardLimits(5, 10), 10),
        (10, 1000, ShardLimits(bytes=1), 10),
    ],
)
def test_numbers_of_files(rows: int, size: int, limits: ShardLimits, expected: int) -> None:
    assert _shards(rows, size, limits) == expected
