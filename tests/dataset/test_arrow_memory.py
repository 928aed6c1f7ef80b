"""Memory for the values of batches."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from pipeline.dataset.arrow_memory import empty


@pytest.mark.parametrize("shape", [(2, 3), (0, 3), (5,), (2, 0, 4)])
@pytest.mark.parametrize("dtype", ["float16", "int64", "bool", "V6"])
def test_an_array_can_be_written(shape: tuple[int, ...], dtype: str) -> None:
    found = empty(shape, np.dtype(dtype))
    assert (found.shape, found.dtype) == (shape, np.dtype(dtype))
    found[...] = np.zeros((), dtype)
    assert found.tobytes() == bytes(found.nbytes)


def test_memory_is_arrows() -> None:
    before = pa.total_allocated_bytes()
    found = empty((1000, 1000), np.dtype("float32"))
    assert pa.total_allocated_bytes() - before == 4_000_000
    assert found.ctypes.data % 64 == 0  # where a cache line begins
    kept = found[:1]
    del found
    assert pa.total_allocated_bytes() - before == 4_000_000  # a view keeps it
    del kept
    assert pa.total_allocated_bytes() == before


def test_too_little_memory_is_no_damaged_data() -> None:
    with pytest.raises(MemoryError) as raised:
        empty((1 << 50,), np.dtype("int8"))
    assert not isinstance(raised.value, pa.ArrowException)


def test_another_pool_of_arrow_is_not_used() -> None:
    code = (
        "import numpy, pyarrow; from pipeline.dataset.arrow_memory import empty;"
        "found = empty((9,), numpy.dtype('u1')); print(pyarrow.total_allocated_bytes(), found.shape)"
    )
    environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "0 (9,)"
