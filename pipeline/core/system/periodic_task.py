"""Calls a function every few seconds, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable


class PeriodicTask:
    """Calls a function in a thread of its own until that returns True or it is closed. A context manager.

    Args:
        call: the function. What it raises ends the thread.
        every_s: seconds before each call; the first one is made at once if ``at_once``.
        name: name of the thread.
        at_once: whether the first call does not wait.
        patience_s: how long closing waits for a call that is under way, in seconds.
    """

    def __init__(
        self,
        call: Callable[[], bool | None],
        every_s: float,
        name: str,
        at_once: bool = False,
        patience_s: float = 10.0,
    ) -> None:
        self.call, self.every_s, self.at_once, self.patience_s = call, every_s, at_once, patience_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name=name)

    def __enter__(self) -> PeriodicTask:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the thread, after the call that is under way."""
        self._stop.set()
        self._thread.join(timeout=self.patience_s)

    def _run(self) -> None:
        if self.at_once and self.call():
            return
        while not self._stop.wait(self.every_s):
            if self.call():
                return
