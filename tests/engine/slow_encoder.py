"""Encoders that take their time. One says how many blocks its process had at the same time, and on which GPUs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.stages.encode import EncodeStage

SECONDS = 0.5


class SlowEncode(EncodeStage):
    """Writes into the dataset's parent folder, for each feature and process, a file of the two."""

    def setup(self) -> None:
        super().setup()
        self.inside, self.most, self.lock = 0, 0, threading.Lock()

    def __call__(self, table: pa.Table, journal: Any = None) -> pa.Table:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        time.sleep(SECONDS)
        done = super().__call__(table, journal)
        with self.lock:
            self.inside -= 1
        path = Path(self.config.output.path).parent / f"seen-{self.features[0].name}-{os.getpid()}"
        path.write_text(f"{self.most} {os.environ.get('CUDA_VISIBLE_DEVICES', 'all')}")
        return done


class Stuck(EncodeStage):
    """Never returns."""

    def __call__(self, table: pa.Table, journal: Any = None) -> pa.Table:
        while True:
            time.sleep(1)


def seen(folder: Path, feature: str) -> Iterator[tuple[int, str]]:
    """Yields for each process of a feature how many blocks it had at the same time at most, and its GPUs."""
    for path in folder.glob(f"seen-{feature}-*"):
        most, gpus = path.read_text().split(" ", 1)
        yield int(most), gpus
