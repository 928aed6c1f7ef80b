"""What `BoundedFile` costs: a shard of tokens and embeddings read with and without it, in turn.

python -m tests.measure.reading_cost
"""

from __future__ import annotations

import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import parquet
from pipeline.dataset.shards.row_files import parquet_options
from pipeline.parquet.bounded_file import BoundedFile

ROWS, TOKENS, WIDTH, DIM, ROUNDS = 2000, 100, 256, 512, 15
_BATCH, _OPENINGS = 64, 50


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shard.parquet"
        _write(path)
        print(f"{path.stat().st_size >> 20} MB")
        for name, work in {"opened": _opened, "read": _read}.items():
            pairs = [(_seconds(work, lambda: pa.OSFile(str(path))), _seconds(work, lambda: _bounded(path)))
                     for _ in range(ROUNDS)]  # fmt: skip
            plain, bounded = (statistics.median(one) for one in zip(*pairs, strict=True))
            ratios = sorted(new / old for old, new in pairs)
            print(
                f"{name}: {1000 * plain:.2f} -> {1000 * bounded:.2f} ms of CPU, median ratio "
                f"{statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"
            )


def _write(path: Path) -> None:
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    values = pa.array(rng.standard_normal(ROWS * TOKENS * WIDTH).astype(np.float16))
    vectors = pa.FixedSizeListArray.from_arrays(values, WIDTH)
    embeddings = pa.array(rng.standard_normal(ROWS * DIM).astype(np.float32))
    table = pa.table(
        {
            "sample_id": [f"folder/{i}.jpg" for i in range(ROWS)],
            "f_tokens": pa.ListArray.from_arrays(pa.array(np.arange(0, ROWS + 1, dtype=np.int32) * TOKENS), vectors),
            "f_embedding": pa.ListArray.from_arrays(pa.array(np.arange(0, ROWS + 1, dtype=np.int32) * DIM), embeddings),
        }
    )
    with pq.ParquetWriter(path, table.schema, **parquet_options(table.schema)) as writer:
        writer.write_table(table, row_group_size=600)


def _bounded(path: Path) -> BoundedFile:
    return BoundedFile(io.FileIO(path))


def _opened(file: Callable[[], Any]) -> None:
    for _ in range(_OPENINGS):
        parquet.open_parquet(file())


def _read(file: Callable[[], Any]) -> None:
    for _ in parquet.open_parquet(file()).iter_batches(_BATCH, use_threads=False):
        pass


def _seconds(work: Callable[[Callable[[], Any]], None], file: Callable[[], Any]) -> float:
    started = time.process_time()
    work(file)
    return time.process_time() - started


if __name__ == "__main__":
    main()
