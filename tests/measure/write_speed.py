"""MB/s of writing float16 tokens on one core, by Parquet options: `python -m tests.measure.write_speed`."""

from __future__ import annotations

import os
import tempfile
import time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.arrow import vector_list_column
from pipeline.dataset.shards.row_files import parquet_options


def main() -> None:
    rows = [np.random.default_rng(i).normal(size=(196, 768)).astype(np.float16) for i in range(128)]
    table = pa.table({"f_tokens": vector_list_column(rows, pa.float16(), 768)})
    ours = parquet_options(table.schema)
    split = {**ours, "use_byte_stream_split": ["f_tokens.list.element.list.element"]}
    variants: dict[str, dict[str, Any]] = {"default": {}, "ours": ours, "ours, byte-stream-split": split}
    pa.set_cpu_count(1)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "t.parquet")
        for name, options in variants.items():
            seconds = []
            for _ in range(3):
                started = time.perf_counter()
                pq.write_table(table, path, **options)
                seconds.append(time.perf_counter() - started)
            megabytes = table.nbytes / 1e6
            print(
                f"{name}: {megabytes / min(seconds):.0f} MB/s, {os.path.getsize(path) / table.nbytes:.3f} of the size"
            )


if __name__ == "__main__":
    main()
