"""From an object store, shuffled reading fetches the bytes of the columns that are read, and little more."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs

from pipeline import dataset
from tests.dataset.loading import written
from tests.support.faulty_proxy import FaultyProxy

ROWS = 2000
COLUMNS = ["photo_embedding", "number"]


@pytest.fixture
def proxy(s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A dataset ``s3://corpus/out`` of 40 row groups whose requests pass through a proxy that counts."""
    rng = np.random.default_rng(0)
    rows = [written.row(i) for i in range(ROWS)]
    for one in rows:
        one["photo_embedding"] = rng.standard_normal(512).astype(np.float32).tolist()
        one["label"] = rng.bytes(2000).hex()  # a column that is not read
    written.write(tmp_path / "out", rows, shards=4, group_rows=50, deleted=[5, 700])
    s3.put(str(tmp_path / "out"), "corpus/", recursive=True)
    with FaultyProxy(os.environ["AWS_ENDPOINT_URL"]) as found:
        monkeypatch.setenv("AWS_ENDPOINT_URL", found.url)
        s3fs.S3FileSystem.clear_instance_cache()
        yield found
        s3fs.S3FileSystem.clear_instance_cache()


def test_bytes_and_rows(proxy: FaultyProxy, tmp_path: Path) -> None:
    read: Any = dataset.open("s3://corpus/out").to_torch(
        COLUMNS, batch_size=32, shuffle=True, collate=pa.RecordBatch.to_pylist
    )
    proxy.requests.clear()  # those of the footers
    rows = [row for batch in read for row in batch]
    assert sorted(row["number"] for row in rows) == [i for i in range(ROWS) if i not in (5, 700)]
    local: Any = dataset.open(str(tmp_path / "out")).to_torch(
        COLUMNS, batch_size=32, shuffle=True, collate=pa.RecordBatch.to_pylist
    )
    assert [row for batch in local for row in batch] == rows
    fetched = [size for method, path, size in proxy.requests if method == "GET" and ".parquet" in path]
    stored, footers = _stored(tmp_path / "out")
    assert read.counts.decoded_groups <= 1.1 * 40
    print(f"{(sum(fetched) - footers) / stored:.3f} times the bytes of the columns, {len(fetched)} requests")
    assert sum(fetched) <= 1.3 * stored + footers
    assert len(fetched) <= 2 * read.counts.decoded_groups + 8  # two columns that are not neighbours


def _stored(out: Path) -> tuple[int, int]:
    """Returns the compressed bytes of the columns, and the bytes that are read of the ends of the files."""
    stored = 0
    files = sorted((out / "v1" / "data").iterdir())
    for file in files:
        metadata = pq.ParquetFile(file).metadata
        for group in range(metadata.num_row_groups):
            chunks = [metadata.row_group(group).column(i) for i in range(metadata.num_columns)]
            stored += sum(one.total_compressed_size for one in chunks if one.path_in_schema.split(".")[0] in COLUMNS)
    return stored, len(files) * (1 << 16)
