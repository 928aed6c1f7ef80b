"""Readers run at the same time; a writer runs alone, and does not wait forever."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.core.system.read_write_lock import ReadWriteLock


def test_sharing_threads_meet() -> None:
    turns, both = ReadWriteLock(), threading.Barrier(2, timeout=10)

    def work(_: int) -> None:
        with turns.read():
            both.wait()

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(work, range(2)))


def test_nothing_is_at_work_beside_one_that_is_alone() -> None:
    turns, inside, found = ReadWriteLock(), [0, 0], []

    def work(number: int) -> None:
        dice = random.Random(number)
        alone = dice.random() < 0.3
        with turns.write() if alone else turns.read():
            inside[alone] += 1
            time.sleep(dice.random() * 2e-3)
            found.append((alone, *inside))
            inside[alone] -= 1

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(400)))
    assert len(found) == 400
    assert all(shared == 0 and alone == 1 for is_alone, shared, alone in found if is_alone)
    assert max(shared for is_alone, shared, _ in found if not is_alone) > 1


def test_who_waits_to_be_alone_goes_before_those_that_come_later() -> None:
    turns, order, held = ReadWriteLock(), list[str](), threading.Event()

    def first() -> None:
        with turns.read():
            held.wait(10)

    def later(name: str) -> None:
        with turns.write() if name == "alone" else turns.read():
            order.append(name)

    threads = [threading.Thread(target=first)]
    threads += [threading.Thread(target=later, args=(name,)) for name in ("alone", "shared")]
    for thread in threads:
        thread.start()
        time.sleep(0.1)
    assert order == []
    held.set()
    for thread in threads:
        thread.join(10)
    assert order == ["alone", "shared"]


@pytest.mark.parametrize("how", ["read", "write"])
def test_an_error_inside_leaves_the_door_open(how: str) -> None:
    turns = ReadWriteLock()
    with pytest.raises(ValueError, match="inside"), getattr(turns, how)():
        raise ValueError("inside")
    with turns.write():
        pass
    with turns.read():
        pass
