"""The shard writer as a Ray Data sink."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa
from ray.data import Datasink
from ray.data.block import BlockAccessor

from pipeline.dataset.shards.write_result import Written
from pipeline.dataset.shards.writer import ShardWriter
from pipeline.engine.ray import metrics as ray_metrics
from pipeline.storage import settings as storage_settings
from pipeline.storage.settings import StorageConfig
from pipeline.telemetry import recording
from pipeline.telemetry.config import NO_METRICS, MetricsConfig


class ShardSink(Datasink[Written]):  # type: ignore[misc]  # Ray has no types here
    """Writes rows as shards. ``written`` is the sum over all tasks once the write is complete."""

    def __init__(
        self,
        open_writer: Callable[[str], ShardWriter],
        run_id: str,
        min_rows: int,
        storage: StorageConfig,
        metrics: MetricsConfig = NO_METRICS,
    ) -> None:
        self.open_writer, self.run_id, self.min_rows, self.storage = open_writer, run_id, min_rows, storage
        self.metrics = metrics
        self.written = Written()

    def write(self, blocks: Iterable[Any], ctx: Any) -> Written:
        """Writes the blocks of one write task. Called by Ray in a worker."""
        started = time.perf_counter()
        storage_settings.use_exactly(self.storage)
        ray_metrics.use(self.metrics)
        writer = self.open_writer(f"{self.run_id}-{ctx.task_idx:06d}")
        try:
            for block in blocks:
                table = BlockAccessor.for_block(block).to_arrow()
                assert isinstance(table, pa.Table)
                writer.add(table)
            written = writer.close()
        except BaseException:
            writer.abort()
            raise
        written.write_s = time.perf_counter() - started
        recording.count_files(written.shards, written.failure_shards, written.write_s)
        return written

    def on_write_complete(self, write_result: Any) -> None:
        for one in write_result.write_returns:
            self.written.add(one)

    @property
    def min_rows_per_write(self) -> int | None:
        return self.min_rows

    def get_name(self) -> str:
        return "Write"
