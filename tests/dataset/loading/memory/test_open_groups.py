"""Groups are closed in the order of their next use, and only as many are open as fit."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.core.errors import ConfigError
from pipeline.dataset.loading.decoded import DecodedGroup
from pipeline.dataset.loading.memory.open_groups import Key, OpenGroup, OpenGroups

ROWS = 10
TRUE = ROWS * 8 * 2
"""Bytes of a group of one column of int64, and of an order of its rows."""


class Reader:
    """Groups of `ROWS` rows whose estimate is ``estimate`` bytes, and which have ``columns`` columns."""

    def __init__(self, groups: int, estimate: int = TRUE, columns: dict[int, int] | None = None) -> None:
        self.index: Any = type("Index", (), {"decoding_bytes": np.full(groups, estimate)})
        self.columns = columns or {}
        self.broken: set[int] = set()

    def read(self, number: int) -> DecodedGroup:
        if number in self.broken:
            raise ConfigError("path", "it cannot be read", "restore it")
        names = [str(i) for i in range(self.columns.get(number, 1))]
        return DecodedGroup.of(pa.table({name: np.arange(ROWS) for name in names}), None)


class Uses:
    """The groups of the first dataset that are used, one after the other."""

    def __init__(self, numbers: list[int]) -> None:
        self.numbers, self.at = numbers, 0
        self.closed: list[int] = []

    def next_use(self, key: Key) -> float:
        later = self.numbers[self.at + 1 :]
        return later.index(key[1]) if key[1] in later else float("inf")

    def closes(self, key: Key) -> None:
        self.closed.append(key[1])

    def run(self, groups: OpenGroups) -> Iterator[OpenGroup]:
        for at, number in enumerate(self.numbers):
            self.at = at
            yield groups.open((0, number))


def opened(reader: Any, uses: Uses, most: int) -> OpenGroups:
    return OpenGroups([reader], most, 2, uses.next_use, uses.closes)


def test_the_bytes_of_a_group() -> None:
    one = OpenGroup(Reader(1).read(0))
    assert one.bytes == TRUE
    one.orders = {0: np.arange(ROWS), 1: np.arange(ROWS)}
    assert one.bytes == TRUE + ROWS * 8


def test_the_group_that_is_needed_last_is_closed() -> None:
    uses = Uses([0, 1, 2, 1, 0, 3, 0, 2])
    groups = opened(Reader(4), uses, 2 * TRUE)
    for one in uses.run(groups):
        assert one.bytes + sum(other.bytes for other in groups._open.values() if other is not one) <= 2 * TRUE
    assert uses.closed == [0, 1, 2, 0]  # for 2, 0, 3 and 2; in the end none is needed, and 0 was used last
    assert groups.decoded == 6


@pytest.mark.parametrize(("streams", "fitting"), [(8, 4), (8, 7), (10, 2)])
def test_streams_that_are_read_in_turn(streams: int, fitting: int) -> None:
    """If the least recently used one were closed, none would be open when it is needed. Here all but one stay open."""
    rounds = 30
    uses = Uses([*range(streams)] * rounds)
    groups = opened(Reader(streams), uses, fitting * TRUE)
    for _ in uses.run(groups):
        pass
    assert groups.decoded == _fewest(uses.numbers, fitting)
    assert groups.decoded < rounds * streams * (streams - fitting + 1.5) / streams


def _fewest(numbers: list[int], fitting: int) -> int:
    """Returns the smallest number of times that groups are decoded: tries all ways, keeping the best for each set."""
    best: dict[frozenset[int], int] = {frozenset(): 0}
    for number in numbers:
        following: dict[frozenset[int], int] = {}
        for held, count in best.items():
            if number in held:
                ways = [(held, count)]
            elif len(held) < fitting:
                ways = [(held | {number}, count + 1)]
            else:
                ways = [(held - {one} | {number}, count + 1) for one in held]
            for way, total in ways:
                following[way] = min(total, following.get(way, total))
        best = following
    return min(best.values())


def test_groups_larger_than_estimated() -> None:
    """The third one takes three times its estimate: others are closed, and later estimates are as large."""
    uses = Uses([0, 1, 2, 3, 0])
    groups = opened(Reader(4, columns={2: 5, 3: 5}), uses, 4 * TRUE)
    for _ in uses.run(groups):
        assert groups.bytes <= 4 * TRUE
        if uses.at == 2:
            assert groups._estimate((0, 3)) == 3 * TRUE
    assert uses.closed == [1, 2]


def test_a_group_that_was_decoded_ahead_is_larger_than_estimated() -> None:
    uses = Uses([0, 1, 2, 3, 2])
    groups = opened(Reader(5, columns={3: 5}), uses, 4 * TRUE)
    with ThreadPoolExecutor(2) as pool:
        for number in range(2):
            groups.open((0, number))
        assert groups.decode_ahead(pool, (0, 3))
        assert groups.decode_ahead(pool, (0, 3))
    with ThreadPoolExecutor(2) as pool:
        assert not groups.decode_ahead(pool, (0, 4))
        assert groups.bytes == 4 * TRUE
        assert uses.closed == [0]  # it is not needed any more


def test_only_as_many_threads_as_fit() -> None:
    uses = Uses([0, 1, 2])
    groups = opened(Reader(3), uses, 2 * TRUE)
    with ThreadPoolExecutor(2) as pool:
        assert [groups.decode_ahead(pool, (0, number)) for number in (0, 1, 2)] == [True, True, False]
        groups.open((0, 0))
        assert not groups.decode_ahead(pool, (0, 2))
        groups.close((0, 0))
        assert groups.decode_ahead(pool, (0, 2))
        assert uses.closed == [0]
    assert groups.decoded == 1


def test_a_group_that_is_decoded_ahead_gives_way() -> None:
    """The one that is needed later."""
    uses = Uses([2, 0, 1])
    uses.at = -1
    groups = opened(Reader(3), uses, 2 * TRUE)
    with ThreadPoolExecutor(2) as pool:
        assert groups.decode_ahead(pool, (0, 0))
        assert groups.decode_ahead(pool, (0, 1))
        groups.open((0, 2))
    assert uses.closed == [1]
    assert [(0, number) in groups for number in range(3)] == [True, False, True]


@pytest.mark.parametrize("estimate", [TRUE, 3 * TRUE], ids=["true size", "estimate"])
def test_a_group_over_the_limit(estimate: int) -> None:
    uses = Uses([0])
    groups = opened(Reader(1, estimate, {0: 5}), uses, 2 * TRUE)
    with pytest.raises(ConfigError, match=f"max_open_bytes: {2 * TRUE}, but a row group takes {3 * TRUE} bytes"):
        groups.open((0, 0))


def test_a_group_over_the_limit_that_was_decoded_ahead() -> None:
    uses = Uses([0])
    groups = opened(Reader(1, columns={0: 5}), uses, 2 * TRUE)
    with ThreadPoolExecutor(1) as pool:
        assert groups.decode_ahead(pool, (0, 0))
    with pytest.raises(ConfigError, match=f"takes {3 * TRUE} bytes"):
        groups.open((0, 0))


def test_a_group_that_cannot_be_read_takes_no_memory() -> None:
    uses = Uses([0, 1])
    reader = Reader(2)
    reader.broken.add(0)
    groups = opened(reader, uses, TRUE)
    with ThreadPoolExecutor(1) as pool:
        assert groups.decode_ahead(pool, (0, 0))
    assert groups.bytes == 0
    groups.open((0, 1))
    for _ in range(2):
        with pytest.raises(ConfigError, match="cannot be read"):
            groups.open((0, 0))
    assert groups.any_open() is None
