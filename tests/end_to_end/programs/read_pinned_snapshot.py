"""Reads snapshot 1 of DATASET again and again until the file STOP exists; fails if a read differs from the first."""

import sys
from pathlib import Path

import pyarrow as pa

from pipeline import dataset

out, stop = sys.argv[1], Path(sys.argv[2])
pinned = dataset.open(out, snapshot=1)
first, reads = pinned.to_arrow(), 0
while True:
    is_last = stop.exists()
    assert dataset.open(out, snapshot=1).to_arrow().equals(first), "a new reader"
    assert pinned.to_arrow().equals(first), "the first reader"
    assert pa.Table.from_batches(pinned.batches()).equals(first), "batch by batch"
    reads += 1
    print(reads, len(first), flush=True)
    if is_last:
        break
