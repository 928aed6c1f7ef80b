"""The rank of this process and the number of ranks."""

from __future__ import annotations

import os
import sys

from pipeline.core.errors import ConfigError

_RANK, _WORLD_SIZE = "RANK", "WORLD_SIZE"
"""Environment variables that `torchrun` sets."""


def resolve_ranks(rank: int | None, world_size: int | None, otherwise: tuple[int, int] = (0, 1)) -> tuple[int, int]:
    """Returns (rank, number of ranks): the given ones, or those of `torch.distributed`, or of the environment.

    Fewer ranks than processes may be given, if several processes read the same rows (tensor parallelism): a number of
    which that of the processes is a multiple.

    Args:
        rank: of this process; None: find it.
        world_size: None: find it.
        otherwise: the result if nothing is given or found.

    Raises:
        ConfigError: only one of the two is given, or the sources contradict each other.
    """
    if rank is None and world_size is None:
        return _found() or otherwise
    if rank is None or world_size is None:
        name = "rank" if rank is None else "world_size"
        raise ConfigError(name, "not given, but the other one is", "give both rank and world_size, or neither")
    if not 0 <= rank < world_size:
        raise ConfigError("rank", f"{rank} of {world_size}", f"0 to {world_size - 1}" if world_size > 0 else "one rank")
    this, processes = _process_group() or _environment() or (rank, world_size)
    if processes % world_size:
        raise ConfigError("world_size", f"{world_size}, but there are {processes} processes", f"{processes}, or part")
    if world_size == processes and rank != this:
        raise ConfigError("rank", f"{rank}, but this process is rank {this} of {processes}", "leave both out")
    return rank, world_size


def _found() -> tuple[int, int] | None:
    """Returns what `torch.distributed` or the environment says."""
    group, environment = _process_group(), _environment()
    if group and environment and group != environment:
        raise ConfigError(
            _RANK,
            f"{environment[0]} of {environment[1]} in the environment, but {group[0]} of {group[1]} in "
            "torch.distributed",
            "give rank and world_size",
        )
    return group or environment


def _process_group() -> tuple[int, int] | None:
    torch = sys.modules.get("torch")  # if torch is not imported, it has no process group
    if torch is None or not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return None
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def _environment() -> tuple[int, int] | None:
    texts = [os.environ.get(name, "") for name in (_RANK, _WORLD_SIZE)]
    if not any(texts):
        return None
    for name, text in zip((_RANK, _WORLD_SIZE), texts, strict=True):
        if not text.isascii() or not text.isdecimal():
            raise ConfigError(name, f"found {text!r} in the environment", "both RANK and WORLD_SIZE, as numbers")
    rank, world_size = int(texts[0]), int(texts[1])
    if rank >= world_size:
        raise ConfigError(_RANK, f"{rank} of {world_size} in the environment", "a smaller RANK")
    return rank, world_size
