"""Reads and maintains each DATASET in every way, where Ray Data has registered its extension types: FLAG DATASET...

Prints the result or the error of each way, and END after each dataset. Fails if the folder FLAG exists.
"""

import importlib
import os
import sys

from rich.console import Console

from pipeline import dataset
from pipeline.core.errors import TesseraError
from pipeline.dataset import describe, maintenance
from pipeline.dataset.commit import snapshots
from pipeline.dataset.diff import index


def attempt(call):
    try:
        print("DONE", call())
    except TesseraError as error:
        print("ERROR", str(error)[:100])


def read_every_way(out, console):
    found = dataset.open(out)
    root, base = f"{out}/v1", snapshots.newest(f"{out}/v1")
    attempt(lambda: [type(row["evil"]).__name__ for row in found.to_arrow().to_pylist()][:1])
    attempt(lambda: len([row for batch in found.batches() for row in batch.to_pylist()]))
    attempt(lambda: len(list(found.to_torch())))
    attempt(lambda: len(list(found.to_torch(batch_size=2))))
    attempt(lambda: len(list(found.to_torch(batch_size=2, shuffle=True))))
    attempt(lambda: len(list(found.to_map())))
    attempt(lambda: found.failures().to_pylist())
    attempt(lambda: len(found.schema))
    attempt(lambda: found.lineage and None)
    attempt(lambda: describe.show(out, 5, console))
    attempt(lambda: [table.num_rows for table in index.of_snapshot(root, base, index.RetryPolicy())])
    attempt(lambda: list(index.to_carry(root, base)) and None)
    attempt(lambda: maintenance.forget(out, ["a"])[0].removed)
    attempt(lambda: maintenance.compact(out, shard_bytes=1 << 30).rewritten)
    attempt(lambda: maintenance.rollback(out, 3) and None)
    attempt(lambda: sorted(row["sample_id"] for row in dataset.open(out).to_arrow().to_pylist()))


importlib.import_module("ray.data")
flag, *datasets = sys.argv[1:]
with open(os.devnull, "w") as nowhere:
    for one in datasets:
        read_every_way(one, Console(file=nowhere))
        assert not os.path.exists(flag), "code of the dataset ran"
        print("END")
