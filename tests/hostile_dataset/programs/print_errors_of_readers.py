"""Reads and rewrites DATASET in five ways, and prints the error of each."""

import sys

from pipeline import dataset
from pipeline.core.errors import TesseraError
from pipeline.dataset import maintenance

out = sys.argv[1]
for call in (
    lambda: dataset.open(out).to_arrow(),
    lambda: list(dataset.open(out).batches(["sample_id"])),
    lambda: list(dataset.open(out).rows_between(0, 5, ["sample_id"], 4)),
    lambda: maintenance.compact(out),
    lambda: maintenance.forget(out, ["a"]),
):
    try:
        call()
    except TesseraError as error:
        print(error)
