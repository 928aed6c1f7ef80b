"""Reads as many rows as a dataset has, of it or of a mixture: PATH DATASETS MAX_OPEN_BYTES STREAMS, 0 for the default.

Prints as JSON the rows, the row groups that it decoded, and the peak of its resident memory above that at its start.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import dataset


def resident_mb(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(f"{name}:"))


path, datasets, max_open_bytes, streams = sys.argv[1], *map(int, sys.argv[2:])
data = dataset.open(path)
options: Any = {"shuffle": True, "collate": pa.RecordBatch.__len__, "max_open_bytes": max_open_bytes}
if streams:
    options |= {"streams": streams, "chunk_rows": 4}
reader: Any
if datasets > 1:
    reader = dataset.mix([(data, 1)] * datasets, ["photo_embedding"], 8, epoch_rows=data.num_rows, **options)
else:
    reader = data.to_torch(["photo_embedding"], batch_size=8, **options)
start = resident_mb("VmRSS")
rows = sum(reader)
found = {"rows": rows, "decoded_groups": reader.counts.decoded_groups, "streams": reader.sequence.shape[0]}
print(json.dumps({**found, "peak_mb": resident_mb("VmHWM") - start}))
