"""The index has each row that is read, whatever is deleted, filtered or lost."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline import dataset
from pipeline.core.errors import ConfigError
from pipeline.dataset.loading.index import Index
from tests.dataset.loading import written

ROWS = [written.row(i) for i in range(100)]
DELETED = [0, 1, 15, 16, 50, *range(64, 67), 99]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Shards of 33, 33 and 34 rows, row groups of 16."""
    return written.write(tmp_path_factory.mktemp("index"), ROWS, deleted=DELETED)


def numbers(data: dataset.Dataset, index: Index) -> list[int]:
    """Returns the numbers of the rows that the index has, read with plain pyarrow."""
    import pyarrow.parquet as pq

    found: list[int] = []
    for i in range(len(index)):
        shard = data.shards[int(index.shards[i])]
        file = pq.ParquetFile(f"{data.root}/{shard.path}")
        rows = file.read_row_group(int(index.groups[i]), ["number"])["number"].to_pylist()
        positions = index.positions(i, np.array(shard.deleted, np.int64))
        found += rows if positions is None else [rows[at] for at in positions]
        assert int(index.sizes[i]) == (len(rows) if positions is None else len(positions))
        assert int(index.stored[i]) == len(rows)
    return found


def test_live_rows(path: str) -> None:
    data = dataset.open(path)
    index = data.index(["number"])
    assert numbers(data, index) == [i for i in range(100) if i not in DELETED]
    assert (index.rows, index.lost_rows) == (91, 0)
    assert len(index) == 8  # of 9: all rows of the last group of the second shard are deleted


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        (pc.field("number") >= 40, lambda row: row["number"] >= 40),
        (pc.field("label") == "l1", lambda row: row["label"] == "l1"),
        (
            pc.field("photo_embedding").is_valid() & (pc.field("score") < 7),
            lambda row: row["photo_grid"] and row["number"] < 56,
        ),
        (pc.field("number") < 0, lambda row: False),
        (pc.scalar(True), lambda row: True),
    ],
    ids=["numbers", "text", "two", "none", "all"],
)
def test_filters(path: str, filter: pc.Expression, expected: object) -> None:
    data = dataset.open(path)
    index = data.index(["photo_tokens"], filter)
    assert callable(expected)
    assert numbers(data, index) == [row["number"] for row in ROWS if row["number"] not in DELETED and expected(row)]
    assert index.sizes.all()


def test_it_is_read_once(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dataset.open(path)
    index = data.index(["number"])
    monkeypatch.setattr("pipeline.dataset.reader.build_index", None)
    assert data.index(["number"]) is index
    again = pickle.loads(pickle.dumps(data))
    assert again.index(["number"]).digest == index.digest


def test_the_digest_says_which_rows(path: str, tmp_path: Path) -> None:
    digests = {dataset.open(path).index(["number"], filter).digest for filter in (None, pc.field("number") > 3)}
    digests.add(dataset.open(written.write(tmp_path, ROWS)).index(["number"]).digest)
    assert len(digests) == 3
    assert dataset.open(path).index(["score"]).digest in digests


def test_bytes_are_those_of_the_columns(path: str) -> None:
    """At least those of the buffers that plain pyarrow allocates for them, and of 8 bytes for the order of a row."""
    import pyarrow.parquet as pq

    data = dataset.open(path)
    for columns in (["number"], ["number", "photo_tokens", "words_token_ids"]):
        index = data.index(columns)
        for i in range(len(index)):
            shard = data.shards[int(index.shards[i])]
            table = pq.ParquetFile(f"{data.root}/{shard.path}").read_row_group(int(index.groups[i]), columns)
            assert table.get_total_buffer_size() <= index.decoded_bytes[i] <= table.get_total_buffer_size() + 4000
            assert index.decoded_bytes[i] + 8 * index.sizes[i] <= index.bytes[i] <= index.decoding_bytes[i]
    one_row, all_rows = data.index(["photo_tokens"], pc.field("number") == 5), data.index(["photo_tokens"])
    assert one_row.bytes[0] < all_rows.bytes[0] / 5 < one_row.decoding_bytes[0]


def test_a_lost_shard_is_an_error_or_left_out(tmp_path: Path) -> None:
    data = dataset.open(written.write(tmp_path, ROWS, deleted=DELETED))
    (tmp_path / "v1" / data.shards[1].path).unlink()
    with pytest.raises(ConfigError, match="is gone"):
        data.index(["number"])
    index = data.index(["number"], skip_unreadable=True)
    assert index.lost_rows == data.shards[1].live
    assert numbers(data, index) == [i for i in range(100) if i not in DELETED and not 33 <= i < 66]


def test_a_column_that_a_shard_lacks(tmp_path: Path) -> None:
    written.write(tmp_path, ROWS[:50], shards=2)
    schema = written.SCHEMA.remove(written.SCHEMA.get_field_index("score"))
    first = sorted((tmp_path / "v1" / "data").iterdir())[0]
    older = [{name: value for name, value in row.items() if name != "score"} for row in ROWS[:25]]
    written.write(tmp_path / "other", older, shards=1, schema=schema)
    next((tmp_path / "other" / "v1" / "data").iterdir()).replace(first)
    with pytest.raises(ConfigError, match="0 columns 'score'"):
        dataset.open(str(tmp_path)).index(["score"])


def test_a_filter_of_another_type(path: str) -> None:
    with pytest.raises(ConfigError, match="filter"):
        dataset.open(path).index(["number"], pc.field("nothing") == 1)
    with pytest.raises(ConfigError, match="filter"):
        dataset.open(path).index(["number"], pc.field("label") > pa.scalar(3))


def test_filters_whose_texts_are_equal(path: str) -> None:
    """Arrow prints the first and last ten values of a set."""
    data = dataset.open(path)
    one, other = ([i for i in range(60) if i // 10 != left] for left in (2, 3))
    filters = [pc.field("number").isin(values) for values in (one, other)]
    assert str(filters[0]) == str(filters[1])
    for values, filter in zip((one, other), filters, strict=True):
        assert numbers(data, data.index(["number"], filter)) == [i for i in values if i not in DELETED]
    assert data.index(["number"], filters[0]) is data.index(["number"], pc.field("number").isin(one))
