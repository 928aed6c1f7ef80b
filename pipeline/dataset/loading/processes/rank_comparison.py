"""Compares what the ranks of a reader read, through the store of torch's process group.

It is no collective operation: each rank compares with the first one that has begun, and waits for none.

`torchrun` keeps the store when it starts processes again, with the values of those that have died. So the keys name the
start. On several nodes each rank counts its own starts; if a rank died before it began a reader, its count is one less
than that of the others, and it may find a value of an earlier start.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections import Counter
from typing import Any

from pipeline.core.errors import ConfigError
from pipeline.dataset.loading.sequence import Sequence

_MAX_WAIT_S = 5
"""If the store does not answer within it, there is no comparison."""
_begun: Counter[str] = Counter()
"""Key of a reader -> how many such readers this process has begun."""
_starts: dict[tuple[int, int, int], int] = {}
"""Process id, number of ranks and rank -> how often a process of this rank has started with this store."""


def compare_ranks(sequence: Sequence, world_size: int, epoch: int, position: int) -> None:
    """Compares a reader that begins with those that other ranks have begun. Called in the trainer's process.

    Does nothing without a process group, or if its number of ranks is not that of the reader.

    Args:
        sequence: the rows.
        world_size: number of ranks of the reader.
        epoch: the first one.
        position: where it begins.

    Raises:
        ConfigError: another rank reads other rows.
    """
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_initialized():
        return
    if not 1 < dist.get_world_size() == world_size:
        return
    key, own, rank = _key(sequence), _values(sequence, epoch, position), dist.get_rank()
    other = _first_value(f"{key}/{_begun[key]}", {"rank": rank, **own}, rank, world_size)
    if other is not None:
        _check(own, other, rank)
    _begun[key] += 1


def _key(sequence: Sequence) -> str:
    """Returns what is equal on all ranks even if they have opened other snapshots."""
    sources = [
        (_dataset(one.data.root), one.columns, str(one.filter), one.weight, one.skip_unreadable)
        for one in sequence.sources
    ]
    settings = (sequence.batch_size, sequence.shuffle, sequence.tail)  # streams and chunk_rows may come from a state
    return hashlib.sha256(json.dumps([sources, settings]).encode()).hexdigest()[:16]


def _dataset(root: str) -> str:
    """Returns a dataset's folder, of that of a version."""
    return re.sub(r"/v[0-9]+$", "", root)


def _values(sequence: Sequence, epoch: int, position: int) -> dict[str, Any]:
    """Returns what must be equal, the causes of other differences first."""
    streams, chunk_rows = sequence.shape
    sources = sequence.sources
    return {
        "version": [one.data.root for one in sources],
        "snapshot": [one.data.snapshot for one in sources],
        "unreadable rows": [one.index.lost_rows for one in sources],
        "rows to read": [one.index.digest for one in sources],
        "seed": sequence.seed,
        "epoch": epoch,
        "position": position,
        "epoch_rows": sequence.epoch_rows,
        "streams": streams,
        "chunk_rows": chunk_rows,
    }


def _start(store: Any, rank: int, world_size: int) -> int:
    """Returns a number that all processes of one start have, and those of earlier starts with this store have not."""
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "")
    if restarts.isdecimal() and os.environ.get("GROUP_WORLD_SIZE") == "1":
        return int(restarts)  # of the node: torchrun on several nodes does not count equally on all
    process = (os.getpid(), world_size, rank)
    if process not in _starts:
        _starts[process] = store.add(f"tessera_reader/starts/{world_size}/{rank}", 1)
    return _starts[process]


def _first_value(key: str, own: dict[str, Any], rank: int, world_size: int) -> dict[str, Any] | None:
    """Returns the value of the first rank that has stored one, which may be this one; None: the store has no answer."""
    from torch.distributed import distributed_c10d

    answers: list[bytes] = []

    def ask() -> None:
        try:
            store = distributed_c10d._get_default_store()
            prefix = f"tessera_reader/{world_size}/{_start(store, rank, world_size)}"
            answers.append(store.compare_set(f"{prefix}/{key}", "", json.dumps(own)))
        except (AttributeError, RuntimeError, ValueError):  # a store that is closed, or has no such operation
            return

    thread = threading.Thread(target=ask, name="compare_ranks", daemon=True)  # another thread may hold the store's lock
    thread.start()
    thread.join(_MAX_WAIT_S)
    try:
        found = json.loads(answers[0]) if answers else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _check(own: dict[str, Any], other: dict[str, Any], rank: int) -> None:
    """Raises ``ConfigError`` for the first value that differs."""
    for name, value in own.items():
        there = other.get(name)
        if there == value:
            continue
        if isinstance(value, list) and isinstance(there, list):
            value, there = next(both for both in zip(value, there, strict=True) if both[0] != both[1])
        found = f"{value} on rank {rank}, but {there} on rank {other['rank']}"
        advice = "give the same on all ranks; to a reader of one rank only, give rank=0 and world_size=1"
        if name in ("version", "snapshot"):
            advice = f"open the same on all ranks: dataset.open(..., {name}=...); a state: load the same on all ranks"
        elif name in ("epoch", "position"):
            advice = "give the same on all ranks, and load the same state on all ranks, or on none"
        elif name == "unreadable rows":
            advice = "restore the shards that cannot be read"
        elif name == "rows to read":
            found = f"others on rank {rank} than on rank {other['rank']}"
            advice = "restore the shards that cannot be read, and give the same labels on all ranks"
        raise ConfigError(name, found, advice)
