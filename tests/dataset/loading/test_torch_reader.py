"""One order of rows for any ranks and workers; a state resumes at the next batch of any rank's sequence."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline import dataset
from pipeline.core.errors import ConfigError
from pipeline.dataset.loading.torch_reader import TorchReader
from tests.dataset.loading import written

ROWS = [written.row(i) for i in range(500)]
DELETED = [0, *range(30, 41), 250, 499]
KEPT = [i for i in range(500) if i not in DELETED]
BATCH = 16


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return written.write(tmp_path_factory.mktemp("reader"), ROWS, deleted=DELETED)


def numbers_of(batch: pa.RecordBatch) -> list[int]:
    found: list[int] = batch["number"].to_pylist()
    return found


def reader(path: str, **options: Any) -> TorchReader:
    """Returns a reader of the numbers of rows."""
    options = {"batch_size": BATCH, "shuffle": True, "collate": numbers_of, **options}
    return dataset.open(path).to_torch(["number"], **options)  # type: ignore[return-value]


def dealt(path: str, world_size: int, **options: Any) -> list[list[int]]:
    """Returns the batches of all ranks in their global order."""
    ranks = [list(reader(path, rank=rank, world_size=world_size, **options)) for rank in range(world_size)]
    assert len({len(one) for one in ranks}) == 1
    return [ranks[rank][number] for number in range(len(ranks[0])) for rank in range(world_size)]


def check_dealt(found: list[list[int]], batches: list[list[int]], world_size: int) -> None:
    """Checks the batches of all ranks, in their global order, against those of one rank."""
    full = sum(len(batch) == BATCH for batch in batches) // world_size * world_size
    assert found[:full] == batches[:full]
    left = [row for one in batches[full:] for row in one]
    rows = max(len(left), world_size) if left else 0  # each rank has one in the last round
    assert [row for one in found[full:] for row in one] == (left * world_size)[:rows]


OPTIONS: dict[str, dict[str, Any]] = {
    "shuffled": {},
    "stored": {"shuffle": False},
    "filtered": {"filter": pc.field("photo_embedding").is_valid() & (pc.field("score") > 2)},
    "streams": {"streams": 7, "chunk_rows": 5, "seed": 3},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("world_size", [2, 3, 5, 8])
def test_any_number_of_ranks_reads_the_same_batches(path: str, name: str, world_size: int) -> None:
    options = OPTIONS[name]
    expected = list(reader(path, **options))
    rows = [row for batch in expected for row in batch]
    assert sorted(rows) == [i for i in KEPT if name != "filtered" or (i % 3 and i > 16)]
    if name == "stored":
        assert rows == KEPT
    check_dealt(dealt(path, world_size, **options), expected, world_size)


def test_each_epoch_has_another_order(path: str) -> None:
    one = reader(path)
    epochs = [list(one) for _ in range(3)]
    assert one.epoch == 3
    assert len({tuple(map(tuple, epoch)) for epoch in epochs}) == 3
    assert all(sorted(row for batch in epoch for row in batch) == KEPT for epoch in epochs)
    assert list(reader(path, epoch=2)) == epochs[2]
    assert list(reader(path, seed=1)) != epochs[0]
    one.set_epoch(1)
    assert list(one) == epochs[1]


def test_an_epoch_that_was_left_is_not_read_again(path: str) -> None:
    one, other = reader(path), reader(path)
    for _ in one:
        break
    list(other)
    assert list(one) == list(other)


def test_columns_have_the_values_of_their_rows(path: str) -> None:
    names = ["number", "label", "score", "photo_embedding", "photo_tokens", "words_token_ids", "sample_id"]
    read = dataset.open(path).to_torch(names, batch_size=BATCH, shuffle=True, collate=pa.RecordBatch.to_pylist)
    rows = [row for batch in read for row in batch]
    assert sorted(rows, key=lambda row: int(row["number"])) == [{name: ROWS[i][name] for name in names} for i in KEPT]


def test_batches_are_tensors_by_default(path: str) -> None:
    data = dataset.open(path)
    batch = next(iter(data.to_torch(["number", "photo_embedding"], batch_size=4)))
    assert batch["number"].tolist() == KEPT[:4]
    assert batch["photo_embedding"].shape == (4, written.D)
    assert batch["photo_embedding_valid"].tolist() == [bool(i % 3) for i in KEPT[:4]]


@pytest.mark.parametrize("stops", [15, pytest.param(200, marks=pytest.mark.slow)])
def test_it_resumes_on_other_ranks_at_the_next_batch(path: str, stops: int) -> None:
    """Each stop has another number of ranks before and after."""
    rng = np.random.default_rng(0)
    expected = [list(reader(path, epoch=epoch)) for epoch in range(4)]
    for _ in range(stops):
        epoch, before, after = int(rng.integers(3)), int(rng.integers(1, 9)), int(rng.integers(1, 9))
        stopped = reader(path, rank=int(rng.integers(before)), world_size=before, epoch=epoch)
        stop = int(rng.integers(1, len(stopped) + 1))
        for _, _ in zip(range(stop), stopped, strict=False):
            pass
        remaining = expected[epoch][stop * before :] if stop < len(stopped) else expected[epoch + 1]
        state = json.loads(json.dumps(stopped.state_dict()))
        ranks = [reader(path, rank=rank, world_size=after) for rank in range(after)]
        for one in ranks:
            one.load_state_dict(state)
        read = [list(one) for one in ranks]
        assert len({len(batches) for batches in read}) == 1
        found = [read[rank][number] for number in range(len(read[0])) for rank in range(after)]
        check_dealt(found, remaining, after)


def test_resuming_does_not_read_what_was_read(path: str) -> None:
    first = reader(path, shuffle=False)
    for _, _ in zip(range(25), first, strict=False):
        pass
    resumed = reader(path, shuffle=False)
    resumed.load_state_dict(first.state_dict())
    assert resumed.remaining == first.remaining == len(resumed) - 25
    next(iter(resumed))
    assert resumed.counts.decoded_groups <= 1 + 2


def test_set_epoch_keeps_a_loaded_position(path: str) -> None:
    """Scripts call it at the beginning of each epoch, also of one that is resumed."""
    first = reader(path, epoch=4)
    next(iter(first))
    resumed = reader(path)
    resumed.load_state_dict(first.state_dict())
    resumed.set_epoch(4)
    assert len(list(resumed)) == len(first) - 1
    resumed.set_epoch(4)
    assert len(list(resumed)) == len(first)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 8}, "saved with batch_size=16, this reader has 8; batch_size=16"),
        ({"seed": 1}, "saved with seed=0, this reader has 1"),
        ({"shuffle": False}, "saved with shuffle=True, this reader has False"),
        ({"tail": "drop"}, "saved with tail='short', this reader has 'drop'"),
        ({"streams": 3}, "saved with streams=64, this reader has 3"),
        ({"chunk_rows": 5}, "saved with chunk_rows=1, this reader has 5"),
        ({"filter": pc.field("number") > 7}, r"saved with filter=None, this reader has '\(number > 7\)'"),
    ],
)
def test_a_state_of_other_settings(path: str, options: dict[str, Any], message: str) -> None:
    state = reader(path).state_dict()
    with pytest.raises(ConfigError, match=message):
        reader(path, **options).load_state_dict(state)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"position": -1},
        {"position": 1 << 40},
        {"epoch": "0"},
        {"sources": []},
        {"sources": [{"snapshot": None}]},
        {"streams": 0},
    ],
)
def test_a_state_with_wrong_values(path: str, change: dict[str, Any]) -> None:
    one = reader(path)
    with pytest.raises(ConfigError):
        one.load_state_dict({**one.state_dict(), **change})


def test_a_state_resumes_in_its_snapshot(tmp_path: Path) -> None:
    """The dataset changes during an epoch. Then the snapshot is vacuumed."""
    written.write(tmp_path, ROWS)
    first, expected = reader(str(tmp_path)), list(reader(str(tmp_path)))
    for _, _ in zip(range(7), first, strict=False):
        pass
    state = first.state_dict()
    written.write(tmp_path, ROWS[:90], snapshot=2)
    resumed = reader(str(tmp_path))
    assert len(resumed) == 6
    resumed.load_state_dict(state)
    assert list(resumed) == expected[7:]
    (tmp_path / "v1" / "_snapshots" / "00000001.json").unlink()
    with pytest.raises(ConfigError, match="is of snapshot 1, which cannot be read") as error:
        reader(str(tmp_path)).load_state_dict(state)
    assert "\n" not in str(error.value)


def test_a_state_of_another_version(tmp_path: Path) -> None:
    """Snapshots are counted in each version. The rows of both have equal numbers here."""
    written.write(tmp_path, ROWS)
    state = reader(str(tmp_path)).state_dict()
    shutil.copytree(tmp_path / "v1", tmp_path / "v2")
    message = r"is of version 'v1', this reader has 'v2'; dataset.open\(..., version='v1'\)"
    with pytest.raises(ConfigError, match=message):
        reader(str(tmp_path / "v2")).load_state_dict(state)


def test_a_state_of_a_dataset_with_other_contents(tmp_path: Path) -> None:
    written.write(tmp_path, ROWS)
    state = reader(str(tmp_path)).state_dict()
    snapshot = tmp_path / "v1" / "_snapshots" / "00000001.json"
    snapshot.write_text(snapshot.read_text().replace("0" * 64, "1" * 64))
    with pytest.raises(ConfigError, match="when other rows were read: of other shards"):
        reader(str(tmp_path)).load_state_dict(state)


def test_other_rows_of_the_same_snapshot(tmp_path: Path) -> None:
    """A shard was lost, and rows that cannot be read are left out."""
    written.write(tmp_path, ROWS)
    state = reader(str(tmp_path), on_error="skip").state_dict()
    sorted((tmp_path / "v1" / "data").iterdir())[0].unlink()
    lost = reader(str(tmp_path), on_error="skip")
    assert lost.report()["unreadable"] == 166
    with pytest.raises(ConfigError, match="when other rows were read: of other shards"):
        lost.load_state_dict(state)
    assert sorted(row for batch in lost for row in batch) == list(range(166, 500))


@pytest.mark.parametrize(("tail", "last"), [("short", [7, 7, 8]), ("drop", []), ("repeat", [16, 16, 16])])
def test_the_last_round(path: str, tail: str, last: list[int]) -> None:
    """454 rows on 3 ranks: 9 rounds of 48, and 22 rows."""
    kept = pc.field("number") < 467
    found = dealt(path, 3, tail=tail, filter=kept)
    one = reader(path, rank=0, world_size=3, tail=tail, filter=kept)
    assert [len(batch) for batch in found] == [16] * 27 + last
    assert len(one) == 9 + bool(last)
    assert one.report() == {
        "rows": 454,
        "repeated": 26 if tail == "repeat" else 0,
        "dropped": 22 if tail == "drop" else 0,
        "unreadable": 0,
        "lost": 0,
    }
    rows = [row for batch in found for row in batch]
    assert len({*rows}) == (432 if tail == "drop" else 454)
    if tail == "repeat":
        assert rows[454:] == rows[:26]


def test_a_copy_reads_the_same(path: str) -> None:
    one = reader(path)
    next(iter(one))
    copy = pickle.loads(pickle.dumps(one))
    assert copy.state_dict() == one.state_dict()
    assert list(copy) == list(one)


def test_an_empty_dataset(tmp_path: Path) -> None:
    one = reader(written.write(tmp_path, ROWS, deleted=range(500)))
    assert (len(one), list(one), one.epoch) == (0, [], 1)


def test_ranks_that_another_process_starts_have_ranks_and_epochs_of_their_own(path: str, tmp_path: Path) -> None:
    """`torch.multiprocessing.spawn` with a reader as argument."""
    import torch.multiprocessing as mp

    mp.spawn(_rank, (reader(path), str(tmp_path)), nprocs=2)  # type: ignore[no-untyped-call]
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    for epoch in range(2):
        found = [ranks[r][epoch][i] for i in range(len(ranks[0][epoch])) for r in range(2)]
        check_dealt(found, list(reader(path, epoch=epoch)), 2)


def _rank(rank: int, one: TorchReader, folder: str) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    Path(folder, f"{rank}.json").write_text(json.dumps([list(one), list(one)]))
    dist.destroy_process_group()


def test_a_group_with_fewer_rows_than_its_footer_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = reader(written.write(tmp_path, ROWS))
    from pipeline.parquet import ParquetFile

    original = ParquetFile.read_row_groups
    monkeypatch.setattr(ParquetFile, "read_row_groups", lambda *args, **options: original(*args, **options).slice(1))
    with pytest.raises(ConfigError, match=r"row group [0-9] has 15 rows, its footer 16"):
        list(one)


@pytest.mark.parametrize("worker", [None, {"batches": "x"}, {"batches": -1}, {"batches": 3}])
def test_the_state_of_a_worker_is_refused_in_a_trainer(path: str, worker: Any) -> None:
    one = reader(path)
    with pytest.raises(ConfigError, match="state of the reader"):
        one.load_state_dict({**one.state_dict(), "worker": worker})
    with pytest.raises(ConfigError, match="epoch: found -1"):
        one.set_epoch(-1)
