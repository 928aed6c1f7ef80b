"""Threads that work beside each other, and now and then one that must not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class ReadWriteLock:
    """Any number of threads hold ``read`` at a time, and one alone ``write``. Waiting writers go first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside, self._waiting, self._taken = 0, 0, False

    @contextmanager
    def read(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._taken and not self._waiting)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def write(self) -> Iterator[None]:
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: not self._taken and not self._inside)
                self._taken = True
            finally:
                self._waiting -= 1
        try:
            yield
        finally:
            with self._changed:
                self._taken = False
                self._changed.notify_all()
