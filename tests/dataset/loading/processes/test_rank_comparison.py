"""Ranks that would read different rows are an error on one of them; no rank waits for another one."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch.distributed as dist
import torch.multiprocessing as mp

from pipeline import dataset
from pipeline.core.errors import ConfigError
from pipeline.dataset.loading.processes import rank_comparison
from pipeline.dataset.shards.reader import open_shard
from tests.dataset.loading import written
from tests.support import ROOT

ROWS = [written.row(i) for i in range(200)]


def reader(path: str, snapshot: int | None = None, **options: Any) -> Any:
    return dataset.open(path, snapshot=snapshot).to_torch(["number"], batch_size=8, shuffle=True, **options)


def _equal(rank: int, path: str) -> None:
    """Two epochs, and further readers."""
    one = reader(path)
    assert [len(list(one)) for _ in range(2)] == [12, 12]
    assert len(list(reader(path))) == 12
    assert len(list(reader(path).loader(1))) == 12


def _one_rank_iterates(rank: int, path: str) -> None:
    if rank == 0:
        list(reader(path))


def _ranks_of_its_own(rank: int, path: str) -> None:
    list(reader(path, snapshot=1 + rank, rank=0, world_size=1))


def _other_settings(rank: int, path: str) -> None:
    """Another reader, which the other rank may read later."""
    list(reader(path, snapshot=1 + rank, tail=("short", "drop")[rank]))


def _other_streams(rank: int, path: str) -> None:
    list(reader(path, streams=4 + rank))


def _one_rank_loads(rank: int, path: str) -> None:
    """The checkpoint is on the local disk of the other rank."""
    one = reader(path)
    if rank == 1:
        one.load_state_dict(_state(path, 3))
    list(one)


def _other_states_later(rank: int, path: str) -> None:
    one = reader(path)
    list(one)
    one.load_state_dict(_state(path, 3 + rank))
    list(one)


def _equal_states(rank: int, path: str) -> None:
    one = reader(path)
    for _ in range(2):
        one.load_state_dict(_state(path, 3))
        assert len(list(one)) == 11


def _state(path: str, batches: int) -> dict[str, Any]:
    """Returns the state after so many batches of all ranks together."""
    one = reader(path, rank=0, world_size=1)
    for _, _ in zip(range(batches), one, strict=False):
        pass
    return one.state_dict()


def _other_snapshots(rank: int, path: str) -> None:
    list(reader(path, snapshot=1 + rank))


def _other_snapshots_with_workers(rank: int, path: str) -> None:
    list(reader(path, snapshot=1 + rank, rank=rank, world_size=2).loader(1))


def _lost_shard(rank: int, path: str) -> None:
    """Rank 1 cannot open a shard when it starts."""

    def opened(root: str, shard: Any) -> Any:
        if shard.path.endswith("-000.parquet"):
            raise ConfigError(shard.path, "cannot be read", "restore it")
        return open_shard(root, shard)

    one = reader(path, on_error="skip", rank=rank, world_size=2) if rank == 0 else None
    with mock.patch("pipeline.dataset.loading.index.open_shard", opened):
        one = one or reader(path, on_error="skip", rank=rank, world_size=2)
    list(one)


def _other_seeds(rank: int, path: str) -> None:
    list(reader(path, seed=rank))


def _other_positions(rank: int, path: str) -> None:
    one = reader(path)
    if rank == 1:
        one.set_epoch(1)
    list(one)


SNAPSHOTS = r"snapshot: [12] on rank [01], but [12] on rank [01]; open the same on all ranks: dataset.open\("
CASES: list[tuple[Callable[[int, str], None], str | None]] = [
    (_equal, None),
    (_one_rank_iterates, None),
    (_ranks_of_its_own, None),
    (_other_settings, None),
    (_equal_states, None),
    (_other_streams, "streams: [45] on rank [01], but [45] on rank [01]; give the same on all ranks"),
    (_one_rank_loads, "position: [03] on rank [01], but [03] on rank [01]; .* load the same state on all ranks"),
    (_other_states_later, "position: [034] on rank [01], but [034] on rank [01]; .* load the same state on all ranks"),
    (_other_snapshots, SNAPSHOTS),
    (_other_snapshots_with_workers, SNAPSHOTS),
    (_lost_shard, "unreadable rows: [0-9]+ on rank .*; restore the shards"),
    (_other_seeds, "seed: [01] on rank [01], but [01] on rank [01]; give the same on all ranks"),
    (_other_positions, "epoch: [01] on rank [01], but [01] on rank [01]; give the same on all ranks"),
]


def _rank(rank: int, paths: list[str], folder: str, method: str) -> None:
    dist.init_process_group("gloo", init_method=method, rank=rank, world_size=2)
    errors: list[list[str]] = []
    for (case, _), path in zip(CASES, paths, strict=True):
        errors.append([])
        for _ in range(2):  # what is wrong is wrong again
            try:
                case(rank, path)
            except ConfigError as error:
                errors[-1].append(str(error))
        dist.barrier()  # nothing above waits for the other rank
    Path(folder, f"{rank}.json").write_text(json.dumps(errors))
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("store", ["file", pytest.param("tcp", marks=pytest.mark.slow)])
def test_ranks_that_read_other_rows(tmp_path: Path, store: str) -> None:
    """On one of the ranks, the second that begins, it is an error."""
    paths = []
    for number in range(len(CASES)):
        paths.append(written.write(tmp_path / f"{number}", ROWS))
        written.write(tmp_path / f"{number}", ROWS[:190], snapshot=2)
    method = f"file://{tmp_path}/store" if store == "file" else f"tcp://127.0.0.1:{_free_port()}"
    mp.start_processes(_rank, (paths, str(tmp_path), method), nprocs=2, start_method="fork")
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    for (case, message), *errors in zip(CASES, *ranks, strict=True):
        found = [error for one in errors for error in one]
        if message is None:
            assert not found, case
        else:
            assert sorted(map(len, errors)) == [0, 2], (case, found)
            assert all(re.fullmatch(message + ".*", error) for error in found), (case, found)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.mark.parametrize("answer", [b"", b"[]", b"{", RuntimeError("closed"), None])
def test_a_store_without_an_answer(answer: bytes | Exception | None, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    def compare_set(*_: str) -> bytes:
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            ended.wait()
        return answer or b""

    store = SimpleNamespace(compare_set=compare_set, add=lambda *_: 1)
    monkeypatch.setattr("torch.distributed.distributed_c10d._get_default_store", lambda: store)
    monkeypatch.setattr(rank_comparison, "_MAX_WAIT_S", 0.1)
    assert rank_comparison._first_value("key", {"seed": 1}, 0, 2) is None
    ended.set()


class Store:
    """A store in memory, which outlives the processes of a start."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.numbers: Counter[str] = Counter()

    def compare_set(self, key: str, expected: str, value: str) -> bytes:
        return self.values.setdefault(key, value).encode()

    def add(self, key: str, number: int) -> int:
        self.numbers[key] += number
        return self.numbers[key]


def test_values_of_an_earlier_start_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sequence, store = reader(written.write(tmp_path, ROWS)).sequence, Store()
    monkeypatch.setattr("torch.distributed.distributed_c10d._get_default_store", lambda: store)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)

    def begin(rank: int, position: int, world_size: int = 2) -> None:
        monkeypatch.setattr(rank_comparison, "_starts", {})
        monkeypatch.setattr(rank_comparison, "_begun", Counter())
        monkeypatch.setattr(dist, "get_rank", lambda: rank)
        monkeypatch.setattr(dist, "get_world_size", lambda: world_size)
        rank_comparison.compare_ranks(sequence, world_size, 0, position)

    for position in (0, 5, 7):
        for rank in (0, 1):
            begin(rank, position)
    begin(0, 9)
    with pytest.raises(ConfigError, match="position: 7 on rank 1, but 9 on rank 0"):
        begin(1, 7)
    begin(0, 11, world_size=3)
    for restarts in "67":  # rank 1 has died before it began
        monkeypatch.setenv("GROUP_WORLD_SIZE", "1")
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", restarts)
        begin(0, 10 + int(restarts))
    begin(1, 17)
    with pytest.raises(ConfigError, match="position: 16 on rank 1, but 17 on rank 0"):
        begin(1, 16)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["counted by torchrun", "counted in the store", "rank 1 begins once only"])
def test_torchrun_starts_the_ranks_again(tmp_path: Path, case: str) -> None:
    """It keeps the store, and the second start begins at another position: 2 of 13 batches of each rank were read."""
    path = written.write(tmp_path / "dataset", ROWS)
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "1", "--nproc-per-node", "2"]
    command += ["--max-restarts", "2", "--monitor-interval", "0.1"]
    command += ["--master-addr", "127.0.0.1", "--master-port", str(_free_port())]
    command += ["-m", "tests.dataset.loading.processes.programs.read_after_restart", path, str(tmp_path), case]
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    environment |= {"OMP_NUM_THREADS": "1", "TORCH_GLOO_LAZY_INIT": "1"}  # gloo may find addresses of the first start
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    ends = {rank: json.loads((tmp_path / f"end-{rank}.json").read_text()) for rank in (0, 1)}
    assert ends == {rank: {"start": 1, "batches": 11} for rank in (0, 1)}
