"""Reading one file of a snapshot: its live rows as plain pyarrow reads them, and a missing file."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline.core.errors import ConfigError
from pipeline.dataset.commit.data_files import File
from pipeline.dataset.shards import filters, reader

SCHEMA = pa.schema([("n", pa.int64()), ("words", pa.string())])


def _shard(root: Path, deleted: tuple[int, ...]) -> tuple[File, pa.Table]:
    """Writes 20 rows in row groups of 6. Returns the file, and its rows that are not deleted."""
    table = pa.table({"n": range(20), "words": [f"w{i}" for i in range(20)]}, schema=SCHEMA)
    (root / "data").mkdir(exist_ok=True)
    pq.write_table(table, root / "data" / "a.parquet", row_group_size=6)
    file = File("data/a.parquet", 20, 1, "", deleted)
    return file, table.filter(pc.invert(pc.is_in(table["n"], pa.array(deleted, pa.int64()))))


@pytest.mark.parametrize("rows", [1, 4, 6, 100])
@pytest.mark.parametrize("deleted", [(), (0,), (19,), (5, 6), tuple(range(6, 12)), tuple(range(1, 19))])
def test_live_rows_in_order(tmp_path: Path, deleted: tuple[int, ...], rows: int) -> None:
    file, live = _shard(tmp_path, deleted)
    found = list(reader.live_rows(str(tmp_path), file, rows=rows))
    assert pa.Table.from_batches(found, SCHEMA) == live
    assert all(0 < len(batch) <= rows for batch in found)


@pytest.mark.parametrize("deleted", [(), (0, 7, 13)])
def test_every_range_of_live_rows(tmp_path: Path, deleted: tuple[int, ...]) -> None:
    file, live = _shard(tmp_path, deleted)
    with reader.open_shard(str(tmp_path), file) as opened:
        for start in range(len(live)):
            for end in range(start + 1, len(live) + 1):
                found = pa.Table.from_batches(reader.live_slice(opened, file, start, end, ["words"], 5))
                assert found == live.slice(start, end - start).select(["words"])


@pytest.mark.parametrize("deleted", [(), (0, 7, 13)])
def test_a_filter_on_a_column_that_is_not_selected(tmp_path: Path, deleted: tuple[int, ...]) -> None:
    file, live = _shard(tmp_path, deleted)
    columns = filters.needed(SCHEMA, ["words"], pc.field("n") > 9)
    found = reader.read_shard(str(tmp_path), file, SCHEMA, ["words"], pc.field("n") > 9, columns)
    assert found == live.filter(pc.field("n") > 9).select(["words"])


def test_a_missing_file(tmp_path: Path) -> None:
    file, _ = _shard(tmp_path, ())
    (tmp_path / file.path).unlink()
    with pytest.raises(ConfigError, match=r"path: a shard of .* is gone .*: .*open another snapshot"):
        reader.read_shard(str(tmp_path), file, SCHEMA, ["n"], None, ["n"])
