"""Measuring in this process leaves its threads as they were."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pytest
import torch


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    before = pa.cpu_count(), torch.get_num_threads()
    yield
    pa.set_cpu_count(before[0])
    torch.set_num_threads(before[1])
