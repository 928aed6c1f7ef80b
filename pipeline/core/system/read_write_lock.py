"""A lock that many readers or one writer can hold."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class ReadWriteLock:
    """A lock for threads: any number hold ``read`` at a time, or a single one holds ``write``. Writers have
    priority."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers, self._waiting_writers, self._is_writing = 0, 0, False

    @contextmanager
    def read(self) -> Iterator[None]:
        """Context manager: holds the lock together with other readers."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_writing and not self._waiting_writers)
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    @contextmanager
    def write(self) -> Iterator[None]:
        """Context manager: holds the lock exclusively."""
        with self._changed:
            self._waiting_writers += 1
            try:
                self._changed.wait_for(lambda: not self._is_writing and not self._readers)
                self._is_writing = True
            finally:
                self._waiting_writers -= 1
        try:
            yield
        finally:
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()
