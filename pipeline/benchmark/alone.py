"""A function in a fresh process with one thread, whose CPU seconds are then all its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context
from typing import Any, ParamSpec, TypeVar

from pipeline.errors import TesseraError
from pipeline.isolation.template import ONE_THREAD

P = ParamSpec("P")
T = TypeVar("T")

_PATIENCE_S = 900.0


def apart(what: str, function: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """``function(*args)`` there. Raises what it raises.

    Raises:
        TesseraError: its process died or hung, as over a file that its decoder does not survive.
    """
    before = {name: value for name, value in os.environ.items() if name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_quiet)
    future = pool.submit(function, *args, **options)
    try:
        done = future.result(timeout=_PATIENCE_S)
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


def _quiet() -> None:
    """Decoders and libraries write to the terminal what they think of a file."""
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
