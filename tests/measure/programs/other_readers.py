"""Readers that `tests.measure.training_reader` compares with. Each returns the number of rows that it read."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq


def iter_batches(path: str, column: str, batch: int) -> int:
    """pyarrow, one file after the other, in one thread."""
    rows = 0
    for file in _files(path):
        for one in pq.ParquetFile(file, pre_buffer=False).iter_batches(batch, columns=[column], use_threads=False):
            rows += len(one)
    return rows


def scan(path: str, column: str, batch: int) -> int:
    """A scan of `pyarrow.dataset`, with its threads."""
    scanner = ds.dataset(f"{path}/v1", format="parquet").scanner(columns=[column], batch_size=batch)
    return sum(len(one) for one in scanner.to_batches())


def copies(path: str, column: str, batch: int) -> dict[str, Callable[[], int]]:
    """Returns the readers that are installed, after the rows were copied to their formats."""
    found: dict[str, Callable[[], int]] = {}
    if importlib.util.find_spec("datasets"):
        found["datasets, shuffle buffer of 10,000"] = partial(_datasets, path, column, batch)
    if importlib.util.find_spec("lance"):
        target = f"{path}.lance"
        _lance_copy(path, column, target)
        found["Lance, fragments in stored order"] = partial(_lance, target, column, batch)
        found["Lance, take of random rows"] = partial(_lance_random, target, column, batch)
    if importlib.util.find_spec("streaming"):
        target = f"{path}.mds"
        _mds_copy(path, column, target)
        found["MosaicML Streaming, shuffled"] = partial(_streaming, target, column, batch)
    return found


def _files(path: str) -> list[Path]:
    return sorted(Path(path, "v1", "data").glob("*.parquet"))


def _datasets(path: str, column: str, batch: int) -> int:
    import datasets

    files = [str(file) for file in _files(path)]
    rows: Any = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True, columns=[column])
    shuffled = rows.shuffle(seed=0, buffer_size=10_000).with_format("arrow").iter(batch_size=batch)
    return sum(len(one) for one in shuffled)


def _lance_copy(path: str, column: str, target: str) -> None:
    import lance

    table = pa.concat_tables(pq.ParquetFile(file).read([column]) for file in _files(path))
    if column == "f_embedding":
        table = table.cast(pa.schema([(column, pa.list_(pa.float32(), 512))]))
    lance.write_dataset(table, target)


def _lance(target: str, column: str, batch: int) -> int:
    import lance

    return sum(len(one) for one in lance.dataset(target).to_batches(columns=[column], batch_size=batch))


def _lance_random(target: str, column: str, batch: int) -> int:
    import lance

    data = lance.dataset(target)
    order = np.random.default_rng(0).permutation(data.count_rows())
    starts = range(0, len(order), batch)
    return sum(len(data.take(order[start : start + batch].tolist(), columns=[column])) for start in starts)


def _mds_copy(path: str, column: str, target: str) -> None:
    streaming = importlib.import_module("streaming")
    kind = "ndarray:float32:512" if column == "f_embedding" else "ndarray:float16:50,256"
    shape = (512,) if column == "f_embedding" else (50, 256)
    dtype = np.float32 if column == "f_embedding" else np.float16
    with streaming.MDSWriter(out=target, columns={column: kind}) as out:
        for file in _files(path):
            values = pq.ParquetFile(file).read([column])[column].combine_chunks().flatten()
            numbers = values.flatten() if shape[1:] else values
            for row in numbers.to_numpy().reshape(-1, *shape).astype(dtype):
                out.write({column: row})


def _streaming(target: str, column: str, batch: int) -> int:
    streaming = importlib.import_module("streaming")
    streaming.base.util.clean_stale_shared_memory()
    data = streaming.StreamingDataset(local=target, shuffle=True, batch_size=batch)
    rows, held = 0, []
    for row in data:
        held.append(row[column])
        if len(held) == batch:
            rows += len(np.stack(held))
            held = []
    return rows + len(held)
