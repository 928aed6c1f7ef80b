"""Only the requested bytes are read from an object store; moved files are found again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pytest

from pipeline import dataset
from pipeline.storage.remote_file import _GAP_BYTES, RemoteFile
from tests.support.dataset_fixtures import RUNS, night


class Counting:
    """A file system that counts its requests."""

    def __init__(self, fs: Any) -> None:
        self.fs, self.requests = fs, list[tuple[int, int]]()

    def size(self, path: str) -> int:
        return int(self.fs.size(path))

    def cat_file(self, path: str, start: int, end: int) -> bytes:
        self.requests.append((start, end))
        found: bytes = self.fs.cat_file(path, start=start, end=end)
        return found

    def cat_ranges(self, paths: list[str], starts: list[int], ends: list[int], on_error: str) -> list[bytes]:
        return [self.cat_file(*one) for one in zip(paths, starts, ends, strict=True)]

    @property
    def bytes(self) -> int:
        return sum(end - start for start, end in self.requests)


DATA = np.random.default_rng(0).integers(0, 256, 1_000_000, np.uint8).tobytes()


@pytest.fixture
def counting() -> Counting:
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/remote/a", DATA)
    return Counting(fs)


def test_a_read_is_a_request_of_its_bytes(counting: Counting) -> None:
    file = RemoteFile(lambda: (counting, "/remote/a"))
    assert file.seek(-100, 2) == 999_900
    assert file.read() == DATA[-100:]
    assert file.seek(5) == 5
    assert file.read(10) == DATA[5:15]
    assert file.read(10) == DATA[15:25]
    assert (file.read(0), file.tell()) == (b"", 25)
    file.seek(0, 2)
    assert file.read(7) == b""
    assert counting.requests == [(999_900, 1_000_000), (5, 15), (15, 25)]


def test_what_was_fetched_is_asked_for_once(counting: Counting) -> None:
    file = RemoteFile(lambda: (counting, "/remote/a"))
    near, far = 1000 + _GAP_BYTES, 500_000
    file.fetch([(far, far + 50), (0, 1000), (near, near + 10), (500, 1500)])
    assert counting.requests == [(0, near + 10), (far, far + 50)]
    for start, end in ((0, 1000), (900, 1400), (near, near + 10), (far, far + 50), (far + 10, far + 20)):
        file.seek(start)
        assert bytes(file.read(end - start)) == DATA[start:end]
    assert len(counting.requests) == 2
    file.seek(far + 40)
    assert file.read(20) == DATA[far + 40 : far + 60]  # not all of it was fetched
    file.fetch([])
    file.seek(0)
    assert file.read(10) == DATA[:10]
    assert len(counting.requests) == 4


def test_a_file_that_was_moved_is_found_again(counting: Counting) -> None:
    places = ["/remote/a"]
    file = RemoteFile(lambda: (counting, places[-1]))
    counting.fs.mv("/remote/a", "/remote/b")
    places.append("/remote/b")
    assert file.read(10) == DATA[:10]
    counting.fs.mv("/remote/b", "/remote/c")
    places.append("/remote/c")
    file.fetch([(100, 200)])
    file.seek(100)
    assert bytes(file.read(100)) == DATA[100:200]
    counting.fs.rm("/remote/c")
    with pytest.raises(FileNotFoundError):
        file.read(10)


def test_one_column_of_a_dataset_on_s3(s3: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A small column takes few bytes and one or two requests per shard, and its rows are right."""
    night("s3://corpus/out/v1", RUNS[1], [f"s{i:04}" for i in range(3000)])
    (shard,) = [name for name in s3.find("corpus/out/v1/data") if name.endswith(".parquet")]
    asked: list[int] = []
    real = s3._cat_file

    async def counted(path: str, version_id: str | None = None, start: Any = None, end: Any = None) -> bytes:
        data: bytes = await real(path, version_id=version_id, start=start, end=end)
        if path.endswith(".parquet"):
            asked.append(len(data))
        return data

    monkeypatch.setattr(s3, "_cat_file", counted)
    found = dataset.open("s3://corpus/out")
    footers = (len(asked), sum(asked))
    ids = found.to_arrow(["sample_id"])["sample_id"].to_pylist()
    assert ids == [f"s{i:04}" for i in range(3000)]
    size = s3.size(shard)
    assert sum(asked) - footers[1] < size / 3 + 70_000, "the footer again, and a column"
    assert len(asked) - footers[0] <= 3
    asked.clear()
    whole = found.to_arrow()
    assert sum(asked) <= size + 70_000
    assert pa.Table.from_batches(list(found.batches(batch_size=100)), whole.schema).equals(whole.combine_chunks())
