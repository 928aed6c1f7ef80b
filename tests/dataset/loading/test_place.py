"""A row has the same number whichever rank and worker reads it; hashes of ids depend on nothing but the ids."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline import dataset
from pipeline.core.errors import ConfigError
from pipeline.dataset.loading.place import Place, id_hashes
from tests.dataset.loading import written
from tests.support import ROOT

ROWS = [written.row(i) for i in range(500)]
DELETED = [0, *range(30, 41), 250, 499]
BATCH = 16
Numbered = list[tuple[int, int, int]]
"""(epoch, number in the epoch, the row's ``number``) of the rows of a batch."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return written.write(tmp_path_factory.mktemp("place"), ROWS, deleted=DELETED)


class Numbers:
    """Returns which rows are where."""

    wants_place: ClassVar[bool] = True

    def __call__(self, batch: pa.RecordBatch, place: Place) -> Numbered:
        assert place.rows.dtype == np.int64
        assert len(place.rows) == batch.num_rows
        return [(place.epoch, *one) for one in zip(place.rows.tolist(), batch["number"].to_pylist(), strict=True)]


def reader(path: str, **options: Any) -> Any:
    options = {"batch_size": BATCH, "shuffle": True, "collate": Numbers(), **options}
    return dataset.open(path).to_torch(["number"], **options)


def in_order(path: str, **options: Any) -> Numbered:
    return [one for batch in reader(path, **options) for one in batch]


OPTIONS: dict[str, dict[str, Any]] = {
    "shuffled": {},
    "stored": {"shuffle": False},
    "filtered": {"filter": pc.field("photo_embedding").is_valid()},
    "repeat": {"tail": "repeat"},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_one_rank_counts_the_rows_of_the_epoch(path: str, name: str) -> None:
    found = in_order(path, **OPTIONS[name])
    rows = 486 if name != "filtered" else len([i for i in range(500) if i not in DELETED and i % 3])
    assert [one[:2] for one in found[:rows]] == [(0, i) for i in range(rows)]
    assert found[rows:] == found[: len(found) - rows]
    assert (len(found) > rows) == (name == "repeat")


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize(("world_size", "workers"), [(2, 0), (3, 2), (7, 0)])
def test_any_ranks_and_workers_number_rows_alike(path: str, name: str, world_size: int, workers: int) -> None:
    expected = set(in_order(path, **OPTIONS[name]))
    found: Numbered = []
    for rank in range(world_size):
        one = reader(path, rank=rank, world_size=world_size, **OPTIONS[name])
        found += [tuple(row) for batch in one.loader(workers) for row in batch]
    assert set(found) == expected


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resume_and_the_next_epochs_number_rows_alike(path: str, workers: int) -> None:
    expected = {(epoch, *one[1:]) for epoch in (0, 1) for one in in_order(path, epoch=epoch)}
    first = reader(path, rank=0, world_size=2)
    for _, _ in zip(range(5), first, strict=False):
        pass
    found = set()
    for rank in range(3):
        resumed = reader(path, rank=rank, world_size=3)
        resumed.load_state_dict(first.state_dict())
        loader = resumed.loader(workers, persistent_workers=workers > 0)
        found |= {tuple(row) for _ in range(2) for batch in loader for row in batch}
    assert found == {one for one in expected if one[0] or one[1] >= 5 * 2 * BATCH}


def test_other_batch_sizes_number_rows_alike(path: str) -> None:
    assert set(in_order(path, batch_size=7)) == set(in_order(path))


def test_rows_that_a_mixture_repeats_have_other_numbers(path: str) -> None:
    data = dataset.open(path)
    read = dataset.mix([(data, 1.0)], ["number"], BATCH, shuffle=True, collate=Numbers(), epoch_rows=1200)
    rows = [one for batch in read for one in batch]
    assert [one[1] for one in rows] == list(range(1200))
    assert len({one[2] for one in rows}) == 486


def test_rows_that_cannot_be_read_have_no_number(tmp_path: Path) -> None:
    """The others of their batch keep theirs."""
    path = written.write(tmp_path / "out", ROWS[:200], shards=4, group_rows=10)
    expected = in_order(path, streams=4, chunk_rows=2)
    broken = sorted((tmp_path / "out" / "v1" / "data").iterdir())[1]
    first = reader(path, streams=4, chunk_rows=2, on_error="skip")
    assert len(first.sequence.sources[0].index.shards)  # the footers are read before the damage
    content = bytearray(broken.read_bytes())
    content[4 : len(content) // 3] = bytes(len(content) // 3 - 4)
    broken.write_bytes(bytes(content))
    found = [one for batch in first for one in batch]
    assert 0 < first.counts.lost < 60
    assert first.counts.repeated == 0
    assert set(found) < set(expected)
    assert len(found) == 200 - first.counts.lost


def test_other_collate_functions_get_the_batch_alone(path: str) -> None:
    batches = list(reader(path, collate=pa.RecordBatch.to_pylist))
    assert sorted(row["number"] for batch in batches for row in batch) == [i for i in range(500) if i not in DELETED]


# -- hashes of ids --------------------------------------------------------------------------------


def test_hashes_do_not_depend_on_the_batch() -> None:
    texts = ["", "a", "b", "ab", "ba", "a/b", "clips/00-red-cross", "ü", "aa", "a\0", "\0a", "x" * 300]
    hashes = id_hashes(texts)
    assert len(set(hashes.tolist())) == len(texts)
    assert hashes.dtype == np.int64
    shuffled = np.random.default_rng(0).permutation(len(texts))
    assert id_hashes([texts[i] for i in shuffled]).tolist() == hashes[shuffled].tolist()
    assert [id_hashes([text])[0] for text in texts] == hashes.tolist()
    sliced = pa.array(["before", *texts, "after"]).slice(1, len(texts))
    assert id_hashes(sliced).tolist() == hashes.tolist()
    assert id_hashes(sliced.cast(pa.large_string())).tolist() == hashes.tolist()
    assert id_hashes(pa.chunked_array([texts[:3], texts[3:]])).tolist() == hashes.tolist()
    assert id_hashes(pa.array([], pa.string())).tolist() == []


def test_hashes_are_the_same_in_every_process() -> None:
    code = "from pipeline.dataset.loading.place import id_hashes; print(id_hashes(['a', 'b'], [0, 1]).tolist())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == str(id_hashes(["a", "b"], [0, 1]).tolist())


@pytest.mark.slow
def test_hashes_of_a_million_ids_differ_and_look_random() -> None:
    ids = pa.array([f"shard-{i // 1000:04}/{i % 1000:03}.jpg" for i in range(100_000)])
    hashes = np.concatenate([id_hashes(ids, np.full(len(ids), window)) for window in range(10)])
    assert len(np.unique(hashes)) == 1_000_000
    bits = (hashes.view(np.uint64)[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 5 * 0.5 / 1000


def test_windows_and_their_order_count() -> None:
    assert id_hashes(["a", "a"], [0, 1])[0] != id_hashes(["a", "a"], [0, 1])[1]
    assert id_hashes([1], [2])[0] != id_hashes([2], [1])[0]
    assert id_hashes(pa.array([3], pa.int32())).tolist() == id_hashes([3]).tolist()
    assert id_hashes([-1])[0] != id_hashes([1])[0]


@pytest.mark.parametrize("values", [["a", None], [1.5], [[1]]])
def test_values_that_are_no_ids(values: list[Any]) -> None:
    with pytest.raises(ConfigError, match="ids: "):
        id_hashes(values)


def test_a_place_of_ids() -> None:
    place = Place.of_ids(3, ["a", "b", "c"], [0, 0, 1])
    assert (place.epoch, place.rows.tolist()) == (3, id_hashes(["a", "b", "c"], [0, 0, 1]).tolist())
    assert place.take(np.array([True, False, True])).rows.tolist() == place.rows[[0, 2]].tolist()
    assert pickle.loads(pickle.dumps(place)).rows.tolist() == place.rows.tolist()
