"""Decoded row groups of a process, and those that are being decoded, within a limit of bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field

import numpy as np

from pipeline.core.errors import ConfigError
from pipeline.dataset.loading.decoded import DecodedGroup, GroupReader

LIMIT = "max_open_bytes"
"""Name of the option, in errors."""
Key = tuple[int, int]
"""Number of the dataset and of the group in its index."""
_ORDER_BYTES = 8
"""Bytes of a row in the order of an epoch."""


@dataclass
class OpenGroup:
    """A decoded row group."""

    group: DecodedGroup
    orders: dict[int, np.ndarray] = field(default_factory=dict)
    """Epoch -> the order of the group's rows in it."""

    @property
    def bytes(self) -> int:
        """Bytes of the rows and of their orders; one order is counted before it is there."""
        return self.group.bytes + max(1, len(self.orders)) * _ORDER_BYTES * self.group.count


class OpenGroups:
    """Row groups that are decoded or being decoded. Together they take at most ``most_bytes``.

    If there is no room for a group, the one whose next use is furthest away is closed, and decoded again when it is
    needed (Belady, "A study of replacement algorithms for a virtual-storage computer", 1966). Streams are read in turn,
    and then the least recently used group is the one that is needed next.

    Before a group is decoded, its bytes are an estimate (`Index.decoding_bytes`). For strings it may be too small: then
    groups are closed after decoding, until the sum fits, and later estimates of the dataset are raised by the same
    factor, up to the largest group so far.

    Attributes:
        decoded: row groups, each as often as it was decoded.

    Args:
        readers: one for each dataset.
        most_bytes: the limit.
        threads: groups that are decoded at the same time.
        next_use: returns when a group is needed next: the larger, the later.
        before_close: is called before a group is closed, and when one that is being decoded is given up.
    """

    def __init__(
        self,
        readers: Sequence[GroupReader],
        most_bytes: int,
        threads: int,
        next_use: Callable[[Key], float],
        before_close: Callable[[Key], None],
    ) -> None:
        self.decoded = 0
        self._readers, self._most_bytes, self._threads = readers, most_bytes, threads
        self._next_use, self._before_close = next_use, before_close
        self._open: dict[Key, OpenGroup] = {}
        """The least recently used first."""
        self._sizes: dict[Key, int] = {}
        """Bytes of each of them."""
        self._open_bytes = 0
        """Their sum."""
        self._loading: dict[Key, Future[DecodedGroup]] = {}
        self._ratios = [1.0] * len(readers)
        """For each dataset, the largest ratio of true to estimated bytes so far."""
        self._largest = [0] * len(readers)
        """For each dataset, the bytes of its largest group so far: estimates are not raised above it."""

    def __contains__(self, key: Key) -> bool:
        return key in self._open or key in self._loading

    @property
    def bytes(self) -> int:
        """Bytes of all groups; of those that are being decoded, as estimated."""
        return self._open_bytes + sum(self._estimate(key) for key in self._loading)

    @property
    def is_busy(self) -> bool:
        """Whether as many groups as there are threads are being decoded, or wait to be opened."""
        return len(self._loading) >= self._threads

    def decode_ahead(self, pool: Executor, key: Key) -> bool:
        """Starts to decode a group, if a thread is free and nothing has to be closed for it.

        Returns whether the group is decoded or being decoded now.
        """
        self._compare_estimates()
        if key in self:
            return True
        if self.is_busy or self.bytes + self._estimate(key) > self._most_bytes:
            return False
        self._loading[key] = pool.submit(self._readers[key[0]].read, key[1])
        return True

    def open(self, key: Key) -> OpenGroup:
        """Returns a group; decodes it, or waits until it is decoded.

        Raises ``ConfigError`` if it cannot be read, and for ``max_open_bytes`` if it does not fit even as the only one.
        """
        if key not in self._open:
            future = self._loading.get(key)
            if future is None:
                self._make_room(key)
                group = self._readers[key[0]].read(key[1])
            else:
                try:
                    group = future.result()
                finally:
                    del self._loading[key]
            self.decoded += 1
            opened = OpenGroup(group)
            self._compare(key, opened.bytes)
            self._open[key] = opened
            self.resize(key)  # it may be larger than estimated
        self._open[key] = self._open.pop(key)
        return self._open[key]

    def any_open(self) -> DecodedGroup | None:
        """Returns the group that was used last; None if there is none."""
        return self._open[next(reversed(self._open))].group if self._open else None

    def close(self, key: Key) -> None:
        """Closes a group, if it is open."""
        if key in self._open:
            self._before_close(key)
            del self._open[key]
            self._open_bytes -= self._sizes.pop(key)

    def resize(self, key: Key) -> None:
        """Computes the bytes of an open group again, after they have changed, and closes others if they do not fit."""
        self._open_bytes -= self._sizes.get(key, 0)
        self._sizes[key] = self._open[key].bytes
        self._open_bytes += self._sizes[key]
        self._evict_for(key)

    def end(self) -> None:
        """Forgets all groups, and what reads them."""
        self._open.clear()
        self._sizes.clear()
        self._loading.clear()
        self._open_bytes, self._readers = 0, ()

    def _evict_for(self, kept: Key | None, needed: int = 0) -> None:
        """Closes groups other than ``kept`` until ``needed`` bytes more fit."""
        while self.bytes + needed > self._most_bytes:
            others = [key for key in self._open if key != kept]
            if others:
                furthest = max(reversed(others), key=self._next_use)  # of equal ones that which was used last
                self.close(furthest)
            elif not self._stop_decoding():
                break

    def _make_room(self, key: Key) -> None:
        """Closes groups until one that will be decoded fits, as far as its bytes are known."""
        least = int(self._readers[key[0]].index.decoding_bytes[key[1]])
        self._check(least)
        self._evict_for(key, min(self._estimate(key), self._most_bytes))

    def _check(self, needed: int) -> None:
        if needed > self._most_bytes:
            raise ConfigError(LIMIT, f"{self._most_bytes}, but a row group takes {needed} bytes", f"at least {needed}")

    def _compare_estimates(self) -> None:
        """Makes room if groups whose decoding has ended are larger than estimated."""
        for key, future in self._loading.items():
            if future.done() and future.exception() is None:
                self._compare(key, OpenGroup(future.result()).bytes)
        self._evict_for(None)

    def _compare(self, key: Key, found: int) -> None:
        """Raises later estimates of a dataset if a group takes more than estimated: ``found`` bytes."""
        self._check(found)
        source, number = key
        estimate = max(1, int(self._readers[source].index.decoding_bytes[number]))
        self._ratios[source] = max(self._ratios[source], found / estimate)
        self._largest[source] = max(self._largest[source], found)

    def _stop_decoding(self) -> bool:
        """Drops the group that is needed last of those being decoded. Returns whether there is one."""
        loading = [key for key, future in self._loading.items() if not (future.done() and future.exception())]
        if not loading:
            return False
        key = max(loading, key=self._next_use)
        future = self._loading[key]
        if not future.cancel():
            if future.exception() is not None:  # it is raised when a batch needs the group
                return True
            self.decoded += 1
        del self._loading[key]
        self._before_close(key)
        return True

    def _estimate(self, key: Key) -> int:
        """Returns the bytes that a group takes while it is decoded; 0 if its decoding has failed."""
        future = self._loading.get(key)
        if future is not None and future.done():
            return 0 if future.exception() else OpenGroup(future.result()).bytes
        source, number = key
        estimate = int(self._readers[source].index.decoding_bytes[number])
        return max(estimate, min(int(estimate * self._ratios[source]), self._largest[source]))
