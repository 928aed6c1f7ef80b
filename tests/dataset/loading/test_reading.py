"""Planned batches are read within the limit of memory, each group once where it fits."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline import dataset
from pipeline.core.errors import ConfigError
from pipeline.dataset.loading.decoded import DecodedGroup, GroupReader
from pipeline.dataset.loading.memory.open_groups import OpenGroup
from pipeline.dataset.loading.order.epoch import Epoch, Order, Rows
from pipeline.dataset.loading.reading import BatchReading
from tests.dataset.loading import written

ROWS = [written.row(i) for i in range(640)]
COLUMNS = ["number", "photo_tokens"]


class Reading:
    """Reads an epoch of a dataset in batches of ``batch`` rows."""

    def __init__(
        self,
        path: str,
        batch: int = 16,
        most: int = 1 << 30,
        streams: int = 8,
        skip: bool = False,
        columns: list[str] = COLUMNS,
    ) -> None:
        data = dataset.open(path)
        schema = pa.schema([data.schema.field(name) for name in columns])
        self.index = data.index(columns)
        self.epoch = Epoch(Order(self.index.sizes, 0, 0, True, streams), 2)
        reader = GroupReader(data.root, data.shards, self.index, schema)
        self.reading = BatchReading([reader], self.plans(batch), self.epoch.permuted, most, 2, skip)

    def plans(self, batch: int) -> Iterator[list[Rows]]:
        for start in range(0, self.epoch.rows, batch):
            yield list(self.epoch.read(start, min(start + batch, self.epoch.rows)))

    def numbers(self) -> list[list[int]]:
        return [batch[0].to_pylist() for batch in self.reading]


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
        most = max(most, len(one.reading._groups._open) + len(one.reading._groups._loading))
    assert most <= 8 + 2 + 2  # streams, those of the next batch, and threads
    assert not one.reading._groups._open.keys() - {key for key, uses in one.reading._streams.items() if uses}


@pytest.mark.parametrize("groups", [1, 2])
def test_with_little_memory_groups_are_decoded_again(path: str, expected: list[list[int]], groups: int) -> None:
    largest = int(Reading(path).index.bytes.max())
    one = Reading(path, most=groups * largest + largest // 2)
    most = 0
    found = []
    for batch in one.reading:
        found.append(batch["number"].to_pylist())
        most = max(most, held(one.reading))
    assert found == expected
    assert one.reading.counts.decoded_groups > 40
    assert 0 < most <= groups * largest + largest // 2


def held(reading: BatchReading) -> int:
    """Returns the bytes of the buffers and orders of open groups, and those that threads are decoding."""
    groups = reading._groups
    loading = [future.result() for future in groups._loading.values() if future.exception() is None]
    total = 0
    for group in [*(one.group for one in groups._open.values()), *loading]:
        total += sum(column.array.get_total_buffer_size() for column in group.columns)
        total += 0 if group.positions is None else group.positions.nbytes
    return total + sum(order.nbytes for one in groups._open.values() for order in one.orders.values())


@pytest.mark.parametrize(("batch", "fitting"), [(16, 4), (16, 6), (4, 4)])
def test_more_streams_than_groups_that_fit(tmp_path: Path, batch: int, fitting: int) -> None:
    """Each batch is of all 8 streams, or of two. Against both policies, simulated for groups of equal size."""
    path = written.write(tmp_path, ROWS, shards=4, group_rows=16)
    one = Reading(path, columns=["number"])
    uses = [(rows.source, rows.group) for planned in one.plans(batch) for rows in planned]
    fewest, least_recent = (decoded(uses, fitting, furthest) for furthest in (True, False))
    true = OpenGroup(one.reading._readers[0].read(0)).bytes
    one = Reading(path, batch, most=(fitting - 1) * true + int(one.index.bytes.max()), columns=["number"])
    found = one.numbers()
    assert found == Reading(path, batch, columns=["number"]).numbers()
    assert fewest <= one.reading.counts.decoded_groups <= 1.05 * fewest
    assert one.reading.counts.decoded_groups < 0.75 * least_recent


def decoded(uses: list[tuple[int, int]], fitting: int, furthest: bool) -> int:
    """Returns how many groups are decoded if that is closed whose next use is furthest, or the least recently used."""
    held: dict[tuple[int, int], int] = {}
    count = 0
    for at, key in enumerate(uses):
        if key not in held and len(held) == fitting:
            if furthest:
                del held[max(held, key=lambda one: uses[at:].index(one) if one in uses[at:] else len(uses))]
            else:
                del held[min(held, key=lambda one: held[one])]
        count += key not in held
        held[key] = at
    return count


def test_strings_of_a_dictionary_are_within_the_limit(tmp_path: Path) -> None:
    """A footer has the bytes of one string for many rows. The first group is larger than estimated, the others not."""
    rows = [{**row, "label": "x" * 5000} for row in ROWS]
    path = written.write(tmp_path, rows, shards=4, group_rows=16)
    assert int(Reading(path, columns=["label"]).index.bytes.max()) < 16 * 5000 / 10
    limit = 4 * 16 * 5020
    one = Reading(path, most=limit, columns=["label"])
    most = [held(one.reading) for _ in one.reading]
    assert max(most) <= limit
    assert max(most) > limit / 2
    with pytest.raises(
        ConfigError, match=r"max_open_bytes: 40000, but a row group takes 80[0-9]{3} bytes; at least 80"
    ):
        Reading(path, most=40_000, columns=["label"], skip=True).numbers()


def test_rows_of_closed_groups_do_not_hold_them(path: str, expected: list[list[int]]) -> None:
    """A batch is of 8 groups, of which two fit: the memory of all others is free when it is made."""
    alive: list[weakref.ref[Any]] = []
    one = Reading(path, most=2 * int(Reading(path).index.bytes.max()))
    (reader,) = one.reading._readers
    original = reader.read

    def read(number: int) -> DecodedGroup:
        group = original(number)
        alive.append(weakref.ref(group))
        assert sum(other() is not None for other in alive) <= 3  # one is closed before another is decoded
        return group

    reader.read = read  # type: ignore[method-assign]
    assert one.numbers() == expected


@pytest.mark.parametrize("batches", [1, 20, 40])
def test_nothing_is_held_after_the_end(path: str, monkeypatch: pytest.MonkeyPatch, batches: int) -> None:
    """40 batches are all: also when it is left early, and although nothing collects garbage."""
    groups: list[weakref.ref[DecodedGroup]] = []
    original = GroupReader.read

    def read(self: GroupReader, number: int) -> DecodedGroup:
        found = original(self, number)
        groups.append(weakref.ref(found))
        return found

    monkeypatch.setattr(GroupReader, "read", read)
    gc.collect()
    gc.disable()
    try:
        one = Reading(path)
        batches_of = iter(one.reading)
        assert len([batch for _, batch in zip(range(batches), batches_of, strict=False)]) == batches
        batches_of.close()  # type: ignore[attr-defined]  # a generator
        reader = one.reading._readers[0]
        assert not reader._idle
        del one, batches_of, reader
        assert groups
        assert [group for group in groups if group() is not None] == []
    finally:
        gc.enable()


def test_groups_of_one_batch_are_decoded_ahead_together(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first batch has rows of 8 groups. None of them is decoded in the main thread."""
    names: list[str] = []
    original = GroupReader.read

    def read(self: GroupReader, number: int) -> DecodedGroup:
        names.append(threading.current_thread().name)
        return original(self, number)

    monkeypatch.setattr(GroupReader, "read", read)
    list(Reading(path).reading)
    assert len(names) == 40
    assert {name.split("_")[0] for name in names} == {"read"}


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
    assert not one.reading._groups._loading  # nor is what is lost decoded again


@pytest.mark.parametrize("most", [1 << 30, 5000])
def test_a_batch_without_any_row_gets_others(damaged: tuple[str, set[int]], most: int) -> None:
    """Batches of one chunk: 16 of 320 have no row that can be read. All ranks must have as many batches."""
    one = Reading(damaged[0], skip=True, batch=2, streams=4, most=most)
    found = []
    for batch in one.reading:
        found.append(batch[0].to_pylist())
        assert held(one.reading) <= most
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
