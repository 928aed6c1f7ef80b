"""A function in a fresh process with one thread, whose CPU seconds are then all its own; or in several at once."""

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

_PATIENCE_S = 900.0


def in_fresh_process(what: str, function: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """``function(*args)`` there. Raises what it raises.

    Raises:
        TesseraError: its process died or hung, as over a file that its decoder does not survive.
    """
    (done,) = at_once(what, 1, function, *args, **options)
    return done


def at_once(what: str, count: int, function: Callable[P, T], *args: P.args, **options: P.kwargs) -> list[T]:
    """The same in ``count`` processes, which begin together."""
    before = {name: value for name, value in os.environ.items() if name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    context = get_context("spawn")
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_quiet, initargs=(context.Barrier(count),))
    futures = [pool.submit(_begun, function, args, options) for _ in range(count)]
    future = futures[0]
    try:
        done = []
        for future in futures:
            done.append(future.result(timeout=_PATIENCE_S))
        pool.shutdown()
        return done
    except (BrokenProcessPool, TimeoutError) as error:
        if isinstance(error, TimeoutError) and future.done():  # the function's own
            raise
        how = "died" if isinstance(error, BrokenProcessPool) else f"did not end in {_PATIENCE_S:g} s"
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


_others: Any = None


def _begun(function: Callable[..., T], args: tuple[Any, ...], options: dict[str, Any]) -> T:
    _others.wait(_PATIENCE_S)
    return function(*args, **options)


def _quiet(others: Any) -> None:
    """Decoders and libraries write to the terminal what they think of a file."""
    global _others
    _others = others
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def one_thread() -> None:
    """For libraries that are imported already, or take no word from the environment."""
    import pyarrow as pa

    pa.set_cpu_count(1)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


def on_gpu(config: Any) -> bool:
    """Whether the features that a config has encode on a CUDA device of this machine."""
    if all(getattr(one.encoder, "device", "cpu") == "cpu" for one in config.features.values()):
        return False
    import torch

    return torch.cuda.is_available()
