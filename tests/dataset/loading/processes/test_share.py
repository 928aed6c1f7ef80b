"""The processes of all ranks read each batch of an epoch once. See also ``test_torch_reader`` and ``test_loader``."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.dataset.loading.processes.share import Share, read_share
from tests.dataset.loading import written
from tests.dataset.loading.test_torch_reader import ROWS, numbers_of, reader


@pytest.mark.parametrize("done", [0, 2])
def test_processes_read_each_batch_once(tmp_path: Path, done: int) -> None:
    """24 batches that 2 ranks with 3 workers read: the first 4 were read before, and ``done`` of each process."""
    one = reader(written.write(tmp_path, ROWS[:384]))
    expected = list(one)
    found = {}
    for rank in range(2):
        for worker in range(3):
            counts, batches = read_share(one.sequence, numbers_of, Share(0, 4, rank, 2, worker, 3, done), None)
            assert counts.decoded_groups == 0
            for number, batch in enumerate(batches, start=done):
                found[4 + rank + 2 * (worker + 3 * number)] = batch
            assert counts.decoded_groups > 0
    assert found == {number: expected[number] for number in range(4 + done * 6, 24)}
