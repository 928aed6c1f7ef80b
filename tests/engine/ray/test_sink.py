"""The sink under Ray Data: every row once, the sums of all tasks, files named by task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.dataset.output import OutputConfig
from pipeline.dataset.shards.writer import ShardWriter
from pipeline.engine.ray.sink import ShardSink
from pipeline.storage.settings import DEFAULT
from tests.dataset.shards.test_writer import FIELDS, SCHEMA, rows


def test_every_row_is_written_once(tmp_path: Path, ray_session: Any) -> None:
    root = str(tmp_path)

    def open_writer(name: str) -> ShardWriter:
        return ShardWriter(root, name, "r", {"f": [f.name for f in FIELDS]}, SCHEMA, OutputConfig(path=root))

    tables = [rows([f"s{i}-{j}" for j in range(10)], {3: "corrupt"}) for i in range(6)]
    sink = ShardSink(open_writer, "r", min_rows=20, storage=DEFAULT)
    ray_session.data.from_arrow(tables).write_datasink(sink)
    done = sink.written
    assert done.problems() == []
    assert (done.rows, done.rows_written, done.rows_failed, done.samples) == (60, 54, 6, 60)
    read = [i for shard in done.shards for i in pq.read_table(tmp_path / shard["path"])["sample_id"].to_pylist()]
    assert sorted(read) == sorted(f"s{i}-{j}" for i in range(6) for j in range(10) if j != 3)
    assert len({shard["path"] for shard in done.shards}) == len(done.shards) <= 3
