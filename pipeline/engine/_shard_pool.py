"""Writes the finished rows of several threads into as few shards as possible."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import pyarrow as pa

from pipeline.core.errors import TesseraError
from pipeline.dataset.shards.write_result import Written
from pipeline.dataset.shards.writer import ShardWriter
from pipeline.engine.progress import count_rows
from pipeline.engine.spec import SinkSpec
from pipeline.telemetry import recording


class ShardPool:
    """Writes finished rows. As many shards are open as blocks were finished at the same time."""

    def __init__(self, sink: SinkSpec) -> None:
        self.sink = sink
        self.idle: list[_OpenShard] = []
        self.opened = 0
        self.closed = False
        self.written = Written()
        self.rows = [0, 0, 0]
        self.lock = threading.Lock()

    def counts(self) -> list[int]:
        """Returns the sums of `progress.count_rows` so far."""
        return self.rows

    def add(self, table: pa.Table) -> None:
        """Writes a table. After ``min_rows`` rows a shard is published."""
        started = time.perf_counter()
        with self.lock:
            self._check_open()
            shard = self.idle.pop() if self.idle else self._open()
        try:
            shard.writer.add(table)
            shard.rows += len(table)
            self._check_open()
            result = shard.writer.close() if shard.rows >= self.sink.min_rows else None
        except BaseException:
            shard.writer.abort()
            raise
        with self.lock:
            for i, number in enumerate(count_rows(table)):
                self.rows[i] += number
            if result is None:
                self.idle.append(shard)
            else:
                self.written.add(result)
            seconds = time.perf_counter() - started
            self.written.write_s += seconds
        recording.count_table(table)
        _count_files(result, seconds)

    def _check_open(self) -> None:
        """Raises ``TesseraError`` if the run is over: a thread that was stopped late must not publish anything."""
        if self.closed:
            raise TesseraError("the run is over")

    def _open(self) -> _OpenShard:
        self.opened += 1
        return _OpenShard(self.sink.open_writer(f"{self.sink.run_id}-{self.opened - 1:06d}"))

    def close(self) -> Written:
        """Publishes the open shards, and returns the sum of all."""
        started = time.perf_counter()
        self.closed = True
        while self.idle:
            result = self.idle[-1].writer.close()
            self.written.add(result)
            self.idle.pop()
            _count_files(result, 0.0)
        seconds = time.perf_counter() - started
        self.written.write_s += seconds
        _count_files(None, seconds)
        return self.written

    def abort(self) -> None:
        """Deletes the files that are being written."""
        self.closed = True
        for shard in self.idle:
            shard.writer.abort()


def _count_files(result: Written | None, seconds: float) -> None:
    """Counts the files of a writer that was closed, if there is one, and the seconds of a call."""
    files = ([], []) if result is None else (result.shards, result.failure_shards)
    recording.count_files(*files, seconds)


@dataclass
class _OpenShard:
    """A writer, and the rows that it has taken."""

    writer: ShardWriter
    rows: int = 0
