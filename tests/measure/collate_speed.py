"""What it costs to make batches of tensors: against a loop over the rows, and against a copy of the same memory.

python -m tests.measure.collate_speed
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from pipeline.dataset.collate import Collate, Column

ROWS, ROUNDS = 256, 31
OTHER_DATA = np.ones(128 << 20, np.uint8)


def main() -> None:
    rng = np.random.default_rng(0)
    few, many, equal = rng.integers(10, 78, ROWS), rng.integers(100, 197, ROWS), np.full(ROWS, 197)
    _measure("token_ids", pa.int32(), few, rng)
    _measure("times", pa.float64(), few, rng)
    for width in (256, 384, 768):
        for lengths in (many, equal):
            _measure("tokens", pa.list_(pa.float16(), width), lengths, rng)


def _measure(part: str, kind: pa.DataType, lengths: np.ndarray, rng: np.random.Generator) -> None:
    field = pa.field(part, pa.list_(kind))
    collate = Collate({part: Column.of(field, part, None)})
    batch = pa.record_batch([_array(field, lengths, rng)], [part])
    padded = collate(batch)[part].numpy()
    print(f"{part} {kind}, {lengths.min()} to {lengths.max()} in a row: {padded.nbytes / 1e6:.1f} MB padded")
    data = np.ones(padded.nbytes, np.uint8)
    del padded
    for name, function in {"padded": collate, "packed": collate.packed()}.items():
        _compare(name, partial(function, batch), partial(_loop, collate, batch), data.copy)


def _array(field: pa.Field, lengths: np.ndarray, rng: np.random.Generator) -> pa.Array:
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    inner = field.type.value_type
    width = inner.list_size if pa.types.is_fixed_size_list(inner) else 1
    kind = inner.value_type if width > 1 else inner
    numbers = pa.array(rng.integers(0, 100, int(lengths.sum()) * width).astype(kind.to_pandas_dtype()))
    numbers = pa.concat_arrays([numbers[:1], numbers[1:]])  # in memory of Arrow, as the reader's
    return pa.ListArray.from_arrays(
        offsets, pa.FixedSizeListArray.from_arrays(numbers, width) if width > 1 else numbers
    )


def _loop(collate: Collate, batch: pa.RecordBatch) -> dict[str, Any]:
    """Makes a padded batch row by row, as a training script would."""
    ((name, values),) = collate.columns_of(batch)
    found = torch.zeros(len(values), max(map(len, values)), *values[0].shape[1:], dtype=values[0].dtype)
    mask = torch.zeros(found.shape[:2], dtype=torch.bool)
    for i, value in enumerate(values):
        found[i, : len(value)] = value
        mask[i, : len(value)] = True
    return {name: found, "mask": mask}


def _compare(name: str, ours: Callable[[], Any], loop: Callable[[], Any], copy: Callable[[], Any]) -> None:
    rounds = [[_seconds(one) for one in (ours, loop, copy)] for _ in range(ROUNDS)]
    medians = [1e3 * statistics.median(one) for one in zip(*rounds, strict=True)]
    against = [statistics.median(row[i] / row[0] for row in rounds) for i in (1, 2)]
    print(
        f"  {name}: {medians[0]:.3f} ms, the loop {medians[1]:.3f} ms ({against[0]:.1f} x), "
        f"a copy of the padded memory {medians[2]:.3f} ms ({against[1]:.2f} x)"
    )


def _seconds(work: Callable[[], Any]) -> float:
    """Measures one call that finds nothing in the CPU's caches: neither values nor freed memory of the call before."""
    OTHER_DATA.fill(0)
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
