"""Calls that may outlast the program: libraries wait for minutes for a storage that does not answer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def in_thread(call: Callable[[], T], name: str) -> Future[T]:
    """Returns the result of ``call``, which begins at once in a daemon thread. The program ends without waiting for it,
    as it would for the threads of an executor."""
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(call())
        except BaseException as error:  # raised by whoever asks for the result
            done.set_exception(error)

    threading.Thread(target=run, daemon=True, name=name).start()
    return done
