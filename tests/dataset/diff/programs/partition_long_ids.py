"""Partitions 3,000 ids of 20 kB each, and prints how many partition numbers there are."""

import pyarrow as pa

from pipeline.dataset.diff import _partitioner

ids = pa.chunked_array([pa.array([f"{i:05}" + "x" * 20_000 for i in range(3000)])])
print(len(_partitioner.partition_of(ids)))
