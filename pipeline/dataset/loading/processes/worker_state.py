"""The state of a worker process of another loader, such as torchdata's ``StatefulDataLoader``: it saves one of each.

The batches of a worker process depend on the numbers of ranks and of worker processes, so it resumes on the same ones
only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.core.errors import ConfigError
from pipeline.core.strict_json import Value
from pipeline.dataset.loading.state import MAX_EPOCH

_HERE = "the state of the reader"


@dataclass
class WorkerState:
    """How far a worker process has read.

    Args:
        epoch: counts from 0.
        position: batches of the epoch that all ranks together were given before it began.
        batches: those that this process has read since.
    """

    epoch: int
    position: int
    batches: int = 0

    def save(self, world_size: int, num_workers: int) -> dict[str, int]:
        """Returns the part of the reader's state that is of this process: plain JSON values."""
        return {
            "epoch": self.epoch,
            "position": self.position,
            "batches": self.batches,
            "world_size": world_size,
            "num_workers": num_workers,
        }


def load_worker(state: Mapping[str, Any], epoch: int, position: int, world_size: int, num_workers: int) -> WorkerState:
    """Returns how far a worker process has read, of the reader's state that it saved; 0 batches for another state.

    Args:
        state: of the reader.
        epoch: that of the state.
        position: that of the state.
        world_size: number of ranks that resume.
        num_workers: worker processes of this rank that resume.

    Raises:
        ConfigError: not such a state, or one of other numbers of ranks or workers.
    """
    if "worker" not in state:
        return WorkerState(epoch, position)
    saved = Value(dict(state), _HERE).member("worker")
    for name, now in (("world_size", world_size), ("num_workers", num_workers)):
        before = saved.member(name).integer(least=1)
        if before != now:
            raise ConfigError(
                _HERE,
                f"is of a worker process and was saved with {name}={before}, now it is {now}",
                "use reader.loader(), which resumes on any numbers",
            )
    return WorkerState(epoch, position, saved.member("batches").integer(most=MAX_EPOCH))
