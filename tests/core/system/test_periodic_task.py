"""A function is called every few seconds, until it returns True or the task is closed."""

from __future__ import annotations

import threading
import time

from pipeline.core.system.periodic_task import PeriodicTask


def test_it_is_called_until_it_is_closed() -> None:
    calls: list[str] = []
    with PeriodicTask(lambda: calls.append(threading.current_thread().name), 0.05, "tick"):
        time.sleep(0.5)
    called = len(calls)
    assert 3 <= called <= 10
    assert set(calls) == {"tick"}
    time.sleep(0.2)
    assert len(calls) == called


def test_it_ends_when_the_function_returns_true() -> None:
    calls: list[int] = []

    def third() -> bool:
        calls.append(1)
        return len(calls) == 3

    with PeriodicTask(third, 0.01, "tick") as task:
        task._thread.join(timeout=10)
        assert not task._thread.is_alive()
    assert len(calls) == 3


def test_when_the_first_call_is_made() -> None:
    calls: list[str] = []
    with (
        PeriodicTask(lambda: calls.append("at once"), 60, "a", at_once=True),
        PeriodicTask(lambda: calls.append("later"), 60, "b"),
    ):
        time.sleep(0.2)
    assert calls == ["at once"]


def test_closing_waits_for_a_call_that_is_under_way_but_not_for_ever() -> None:
    going, over = threading.Event(), threading.Event()

    def slow() -> None:
        going.set()
        time.sleep(0.3)
        over.set()

    with PeriodicTask(slow, 60, "slow", at_once=True):
        assert going.wait(10)
    assert over.is_set()

    started = time.monotonic()
    with PeriodicTask(threading.Event().wait, 60, "hangs", at_once=True, patience_s=0.2):  # type: ignore[arg-type]
        pass
    assert time.monotonic() - started < 5
