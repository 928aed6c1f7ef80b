"""Runs a function in one or several new processes with one thread each, so that their CPU seconds are its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context
from typing import Any, ParamSpec, TypeVar

from pipeline.core.errors import TesseraError
from pipeline.sandbox.fork_server import ONE_THREAD

P = ParamSpec("P")
T = TypeVar("T")

_TIMEOUT_S = 900.0


def in_fresh_process(what: str, function: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """Runs ``function(*args, **options)`` in a new process and returns its result. Raises what the function raises.

    Args:
        what: names the function in errors.

    Raises:
        TesseraError: the process died or hung, for example because of a file that crashes its decoder.
    """
    (done,) = in_fresh_processes(what, 1, function, *args, **options)
    return done


def in_fresh_processes(what: str, count: int, function: Callable[P, T], *args: P.args, **options: P.kwargs) -> list[T]:
    """Runs the function in ``count`` processes, which start it at the same time. Returns their results."""
    before = {name: value for name, value in os.environ.items() if name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    context = get_context("spawn")
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_initialize, initargs=(context.Barrier(count),))
    futures = [pool.submit(_run_together, function, args, options) for _ in range(count)]
    future = futures[0]
    try:
        done = []
        for future in futures:
            done.append(future.result(timeout=_TIMEOUT_S))
        pool.shutdown()
        return done
    except (BrokenProcessPool, TimeoutError) as error:
        if isinstance(error, TimeoutError) and future.done():  # raised by the function itself
            raise
        how = "died" if isinstance(error, BrokenProcessPool) else f"did not end in {_TIMEOUT_S:g} s"
        raise TesseraError(
            f"the process of {what} {how}: it decodes without protection; extract names the file, source.exclude it"
        ) from error
    finally:
        for process in list((pool._processes or {}).values()):
            with suppress(Exception):
                process.kill()
        pool.shutdown(cancel_futures=True)
        for name in ONE_THREAD:
            del os.environ[name]
        os.environ.update(before)


_barrier: Any = None
"""Barrier of all processes that run the function."""


def _run_together(function: Callable[..., T], args: tuple[Any, ...], options: dict[str, Any]) -> T:
    """Runs the function once all processes are ready."""
    _barrier.wait(_TIMEOUT_S)
    return function(*args, **options)


def _initialize(barrier: Any) -> None:
    """Sets the barrier, and hides what decoders and libraries print about a file."""
    global _barrier
    _barrier = barrier
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    os.dup2(devnull, 2)
    os.close(devnull)


def one_thread() -> None:
    """Limits libraries to one thread that are already imported, or that ignore the environment."""
    import pyarrow as pa

    pa.set_cpu_count(1)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


def on_gpu(config: Any) -> bool:
    """Returns whether a feature of ``config`` encodes on a CUDA device of this machine."""
    if all(getattr(one.encoder, "device", "cpu") == "cpu" for one in config.features.values()):
        return False
    import torch

    return torch.cuda.is_available()
