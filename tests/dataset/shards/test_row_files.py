"""Shards and row groups of about equal size."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from pipeline.dataset.shards.row_files import parquet_options
from tests.dataset.shards.test_writer import SCHEMA, rows, write


def test_vectors_are_written_without_dictionary_and_floats_byte_stream_split(tmp_path: Path) -> None:
    done = write(tmp_path, rows(["a"], {}))
    group = pq.ParquetFile(tmp_path / done.shards[0]["path"]).metadata.row_group(0)
    by_path = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    tokens = "f_tokens.list.element.list.element"
    for path in ("f_embedding.list.element", tokens, "f_times.list.element"):
        assert ("BYTE_STREAM_SPLIT" in by_path[path].encodings) is (path != tokens)
        assert not by_path[path].has_dictionary_page
        assert by_path[path].compression == "ZSTD"
    assert parquet_options(SCHEMA)["use_dictionary"] == ["sample_id", "source_version", "run_id"]
