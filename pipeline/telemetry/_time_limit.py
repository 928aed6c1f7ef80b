"""Runs a call that may hang, for a limited time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

_Result = TypeVar("_Result")


class TimeLimit(Exception):
    """The call has not ended in time. Its thread is left to itself; it does not keep the process from ending."""


def limited(call: Callable[[], _Result], seconds: float, name: str) -> _Result:
    """Returns the result of ``call``, which runs in a daemon thread.

    A timeout of a socket limits one operation on it, not a server that answers a byte at a time, and not the
    resolution of a name.

    Raises:
        TimeLimit: it has not ended after ``seconds``.
        BaseException: whatever ``call`` raised.
    """
    results: list[_Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeLimit(name)
    return results[0]
