"""The shape of a sequence follows from rows and memory, and its settings say all that decides it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline import dataset
from pipeline.core.errors import ConfigError
from pipeline.dataset.loading.order.epoch import Epoch
from pipeline.dataset.loading.order.mixture import MixedEpoch
from pipeline.dataset.loading.sequence import Sequence, Source
from tests.dataset.loading import written


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    path = written.write(tmp_path_factory.mktemp("sequence"), [written.row(i) for i in range(1000)])
    return Source(dataset.open(path), ("number", "photo_tokens"))


def sequence(*sources: Source, epoch_rows: int | None = None, max_open_bytes: int = 1 << 30) -> Sequence:
    return Sequence(sources, 32, 0, True, "short", None, None, epoch_rows, max_open_bytes)


def test_streams_fit_into_memory(source: Source) -> None:
    """Those of all streams, and two that are decoded ahead."""
    group = int(source.index.bytes.max())
    assert (source.index.bytes == source.index.decoding_bytes).all()
    assert sequence(source).shape == (64, 1)
    assert sequence(source, max_open_bytes=10 * group).shape == (8, 8)
    assert sequence(source, max_open_bytes=10 * group - 1).shape == (4, 16)
    assert sequence(source, max_open_bytes=1).shape == (1, 32)
    assert sequence(source, source, epoch_rows=10, max_open_bytes=10 * group).shape == (4, 16)
    assert sequence(source, source, epoch_rows=10, max_open_bytes=10 * group - 1).shape == (2, 32)
    assert replace(sequence(source), shuffle=False).shape == (1, 32)
    assert replace(sequence(source), streams=5, chunk_rows=3).shape == (5, 3)


def test_epochs(source: Source) -> None:
    one, mixed = sequence(source), sequence(source, source, epoch_rows=30)
    assert isinstance(one.epoch(0), Epoch)
    assert isinstance(mixed.epoch(0), MixedEpoch)
    assert (one.rows, mixed.rows) == (one.epoch(0).rows, mixed.epoch(0).rows) == (1000, 30)
    assert one.deal(2, 3).batch(1, 0) == [(96, 128)]


def test_settings_are_all_that_decides_the_rows(source: Source) -> None:
    base = sequence(source)
    others = [
        replace(base, batch_size=9, chunk_rows=1),
        replace(base, shuffle=False),
        replace(base, tail="drop"),
        replace(base, streams=9),
        replace(base, chunk_rows=9),
        sequence(source, epoch_rows=1000),
        sequence(replace(source, weight=2.0), epoch_rows=1000),
    ]
    assert len({str(one.settings()) for one in [base, *others]}) == 8
    assert replace(base, max_open_bytes=1 << 20).settings() == base.settings()


def test_a_dataset_without_rows_cannot_be_mixed(tmp_path_factory: pytest.TempPathFactory) -> None:
    rows = [written.row(i) for i in range(9)]
    path = written.write(tmp_path_factory.mktemp("empty"), rows, deleted=range(9))
    empty = Source(dataset.open(path), ("number",))
    assert sequence(empty).shape == (1, 1)
    with pytest.raises(ConfigError, match="datasets: one has no rows"):
        _ = sequence(empty, epoch_rows=5).shape


@pytest.mark.parametrize(
    ("streams", "chunk_rows", "processes", "expected"),
    [(64, 32, 1, 1), (64, 32, 8, 1), (64, 32, 3, 3), (64, 32, 16, 2), (72, 32, 3, 1), (64, 1, 2, 2), (1, 32, 4, 4)],
)
def test_processes_that_decode_a_row_group(
    source: Source, streams: int, chunk_rows: int, processes: int, expected: int
) -> None:
    """Against a count: the streams of all batches of 256 rows that each process reads."""
    one = replace(sequence(source), batch_size=256, streams=streams, chunk_rows=chunk_rows)
    chunks = 256 // chunk_rows
    read = [
        {(number * chunks + i) % streams for number in range(process, 64 * processes, processes) for i in range(chunks)}
        for process in range(processes)
    ]
    assert sum(map(len, read)) == expected * len(set.union(*read))
    assert one.decoding_processes(processes) == expected


def test_chunks_that_do_not_divide_a_batch(source: Source) -> None:
    """Four batches of 8 rows are of one chunk of 32, so each process reads all streams."""
    assert replace(sequence(source), batch_size=8, streams=64, chunk_rows=32).decoding_processes(4) == 4
    with pytest.raises(ConfigError, match="streams: 65537; at most 65536"):
        _ = replace(sequence(source), streams=65537).shape
