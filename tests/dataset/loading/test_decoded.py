"""Row groups are decoded as stored, and files are not opened again for each."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline import dataset
from pipeline.core.errors import ConfigError
from pipeline.dataset.loading import decoded
from pipeline.dataset.loading.decoded import DecodedGroup, GroupReader, gather_rows
from pipeline.dataset.loading.memory import footers
from pipeline.parquet import ParquetFile
from tests.dataset.loading import written

ROWS = [written.row(i) for i in range(90)]
COLUMNS = ["words_token_ids", "number", "photo_tokens", "label"]


def reader(path: str, columns: list[str] = COLUMNS, **index: Any) -> GroupReader:
    data = dataset.open(path)
    schema = pa.schema([data.schema.field(name) for name in columns])
    return GroupReader(data.root, data.shards, data.index(columns, **index), schema)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return written.write(tmp_path_factory.mktemp("decoded"), ROWS, deleted=[3, 4, 40])


def all_rows(group: DecodedGroup) -> np.ndarray:
    return np.arange(group.rows if group.positions is None else len(group.positions))


def test_all_groups_have_their_rows(path: str) -> None:
    groups = reader(path)
    parts = [(group, all_rows(group)) for group in map(groups.read, range(len(groups.index)))]
    found = gather_rows(groups.schema, parts)
    found.validate(full=True)
    assert found.schema.names == COLUMNS
    assert found.to_pylist() == [
        {name: row[name] for name in COLUMNS} for row in ROWS if row["number"] not in (3, 4, 40)
    ]


def test_many_values_are_decoded_in_pieces(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most 30 values of a column in each piece. The rows are the same."""
    whole = reader(path)
    sizes: list[int] = []
    original = ParquetFile.iter_batches

    def count(self: ParquetFile, rows: int, **options: Any) -> Any:
        for batch in original(self, rows, **options):
            sizes.append(len(batch))
            yield batch

    monkeypatch.setattr(ParquetFile, "iter_batches", count)
    expected = [whole.read(number) for number in range(len(whole.index))]
    assert not sizes
    monkeypatch.setattr("pipeline.parquet.file._PIECE_VALUES", 30)
    pieces = reader(path)
    for number, group in enumerate(expected):
        found = pieces.read(number)
        rows = [(one, all_rows(one)) for one in (group, found)]
        assert gather_rows(whole.schema, rows[:1]).equals(gather_rows(whole.schema, rows[1:]))
        assert 0 < found.bytes <= group.bytes
    assert sum(sizes) == int(whole.index.stored.sum())
    assert max(sizes) <= 16 // 2


def test_few_rows_of_a_group_do_not_hold_its_memory(path: str) -> None:
    whole, few = reader(path).read(0), reader(path, filter=pc.field("number") == 5).read(0)
    assert (few.rows, whole.rows) == (1, 16)
    assert few.bytes < whole.bytes / 5
    assert gather_rows(reader(path).schema, [(few, np.array([0]))]).to_pylist()[0]["number"] == 5


def test_a_copy_of_some_rows(path: str) -> None:
    groups = reader(path)
    group = groups.read(0)
    copy = group.taken(groups.schema, np.array([5, 2]))
    assert copy.rows == 2
    both = [gather_rows(groups.schema, [part]) for part in ((copy, np.array([0, 1])), (group, np.array([5, 2])))]
    assert both[0].equals(both[1])


def test_open_files_are_used_again_and_limited(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    original = decoded.open_shard

    def count(root: str, shard: Any, metadata: Any) -> Any:
        assert metadata is not None  # the index has read it
        opened.append(shard.path)
        return original(root, shard, metadata)

    monkeypatch.setattr(decoded, "open_shard", count)
    groups = reader(path)
    for number in (0, 1, 0, 2, 0, 4, 1):
        groups.read(number)
    assert len(opened) == len({*opened}) == 3
    monkeypatch.setattr(decoded, "_OPEN_FILES", 1)
    for number in (0, 2, 0):
        groups.read(number)
    assert len(opened) == 5


def test_columns_are_cast_to_the_types_of_the_schema(tmp_path: Path) -> None:
    """An older shard may have another type of column: the newest shard decides."""
    written.write(tmp_path, ROWS[:30], shards=2)
    at = written.SCHEMA.get_field_index("number")
    older = written.SCHEMA.set(at, pa.field("number", pa.int32()))
    first = sorted((tmp_path / "v1" / "data").iterdir())[0]
    written.write(tmp_path / "other", ROWS[:15], 1, schema=older)
    next((tmp_path / "other" / "v1" / "data").iterdir()).replace(first)
    groups = reader(str(tmp_path), ["number"])
    found = gather_rows(groups.schema, [(groups.read(0), np.arange(15))])
    assert found.schema.field("number").type == pa.int64()


def test_a_file_that_changed(tmp_path: Path) -> None:
    groups = reader(written.write(tmp_path, ROWS))
    shard = tmp_path / "v1" / groups.shards[0].path
    data = bytearray(shard.read_bytes())
    data[4:2000] = bytes(1996)
    shard.write_bytes(data)
    with pytest.raises(ConfigError, match=r"-1-000\.parquet' .* cannot be read"):
        groups.read(0)
    groups.read(5)


def test_footers_are_read_again_only_without_those_of_the_index(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pickled index, as a spawned process has it, has none; they are kept within a limit."""
    parsed: list[str] = []
    original = decoded.open_shard

    def count(root: str, shard: Any, metadata: Any) -> Any:
        parsed.extend([shard.path] if metadata is None else [])
        return original(root, shard, metadata)

    monkeypatch.setattr(decoded, "open_shard", count)
    monkeypatch.setattr(decoded, "_OPEN_FILES", 1)
    for limit, is_pickled, times in ((1 << 20, False, 0), (1 << 20, True, 1), (1, True, 2)):
        monkeypatch.setattr(footers, "_MAX_BYTES", limit)
        parsed.clear()
        groups = reader(path)
        assert len(groups.shards) > 1
        if is_pickled:
            groups.index = pickle.loads(pickle.dumps(groups.index))
        for _ in range(2):
            for shard in range(len(groups.shards)):
                groups.read(int(np.flatnonzero(groups.index.shards == shard)[0]))
        assert len(parsed) == times * len(groups.shards)
