"""Planned batches are read within the limit of memory, each group once where it fits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline import dataset
from pipeline.core.errors import ConfigError
from pipeline.dataset.loading.decoded import GroupReader
from pipeline.dataset.loading.order.epoch import Epoch, Order, Rows
from pipeline.dataset.loading.reading import BatchReading
from tests.dataset.loading import written

ROWS = [written.row(i) for i in range(640)]
COLUMNS = ["number", "photo_tokens"]


class Reading:
    """Reads an epoch of a dataset in batches of ``batch`` rows."""

    def __init__(self, path: str, batch: int = 16, most: int = 1 << 30, streams: int = 8, skip: bool = False) -> None:
        data = dataset.open(path)
        schema = pa.schema([data.schema.field(name) for name in COLUMNS])
        self.index = data.index(COLUMNS)
        self.epoch = Epoch(Order(self.index.sizes, 0, 0, True, streams), 2)
        reader = GroupReader(data.root, data.shards, self.index, schema)
        self.reading = BatchReading([reader], self.plans(batch), self.epoch.permuted, most, 2, skip)

    def plans(self, batch: int) -> Iterator[list[Rows]]:
        for start in range(0, self.epoch.rows, batch):
            yield list(self.epoch.read(start, min(start + batch, self.epoch.rows)))

    def numbers(self) -> list[list[int]]:
        return [batch["number"].to_pylist() for batch in self.reading]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return written.write(tmp_path_factory.mktemp("reading"), ROWS, shards=4, group_rows=16)


@pytest.fixture(scope="module")
def expected(path: str) -> list[list[int]]:
    return Reading(path).numbers()


def test_each_group_is_decoded_once(path: str, expected: list[list[int]]) -> None:
    one = Reading(path)
    assert one.numbers() == expected
    assert sorted(row for batch in expected for row in batch) == list(range(640))
    assert one.reading.counts.decoded_groups == len(one.index) == 40


def test_only_the_groups_of_the_streams_are_open(path: str) -> None:
    one = Reading(path)
    most = 0
    for _ in one.reading:
        most = max(most, len(one.reading._open) + len(one.reading._loading))
    assert most <= 8 + 2 + 2  # streams, those of the next batch, and threads
    assert not one.reading._open.keys() - {key for key, uses in one.reading._streams.items() if uses}


@pytest.mark.parametrize("groups", [1, 2])
def test_with_little_memory_groups_are_decoded_again(path: str, expected: list[list[int]], groups: int) -> None:
    largest = int(Reading(path).index.bytes.max())
    one = Reading(path, most=groups * largest + largest // 2)
    most = 0
    found = []
    for batch in one.reading:
        found.append(batch["number"].to_pylist())
        most = max(most, sum(opened.group.bytes for opened in one.reading._open.values()))
    assert found == expected
    assert one.reading.counts.decoded_groups > 40
    assert most <= groups * largest + largest // 2


def test_a_group_that_does_not_fit_at_all(path: str) -> None:
    with pytest.raises(ConfigError, match=r"max_open_bytes: 10, but a row group takes [0-9]+ bytes; at least"):
        Reading(path, most=10).numbers()


@pytest.fixture
def damaged(tmp_path: Path) -> tuple[str, set[int]]:
    """A dataset whose second shard has zeros instead of its first two row groups, and the numbers of their rows."""
    path = written.write(tmp_path, ROWS, shards=4, group_rows=16)
    import pyarrow.parquet as pq

    shard = sorted((tmp_path / "v1" / "data").iterdir())[1]
    end = pq.ParquetFile(shard).metadata.row_group(2).column(0).dictionary_page_offset
    data = bytearray(shard.read_bytes())
    data[4:end] = bytes(end - 4)
    shard.write_bytes(data)
    return path, {*range(160, 192)}


def test_rows_that_cannot_be_read_are_an_error(damaged: tuple[str, set[int]]) -> None:
    with pytest.raises(ConfigError, match=r"-1-001\.parquet' .* cannot be read"):
        Reading(damaged[0]).numbers()


@pytest.mark.parametrize("most", [1 << 30, 5000])
def test_or_are_left_out_and_counted(damaged: tuple[str, set[int]], expected: list[list[int]], most: int) -> None:
    one = Reading(damaged[0], skip=True, most=most)
    found = one.numbers()
    assert found == [[row for row in batch if row not in damaged[1]] for batch in expected]
    assert (one.reading.counts.lost, one.reading.counts.repeated) == (32, 0)
    assert not one.reading._loading  # nor is what is lost decoded again


def test_a_batch_without_any_row_gets_others(damaged: tuple[str, set[int]]) -> None:
    """Batches of one chunk: 16 of 320 have no row that can be read. All ranks must have as many batches."""
    one = Reading(damaged[0], skip=True, batch=2, streams=4)
    found = one.numbers()
    assert [len(batch) for batch in found] == [2] * 320
    assert (one.reading.counts.lost, one.reading.counts.repeated) == (32, 32)
    rows = [row for batch in found for row in batch]
    assert {*rows} == {*range(640)} - damaged[1]
    assert len(rows) == 640


def test_errors_of_a_plan_stop_the_threads(path: str) -> None:
    one: Any = Reading(path)
    iterator = iter(one.reading)
    next(iterator)
    iterator.close()
    import threading

    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read_ahead") and thread.daemon]
