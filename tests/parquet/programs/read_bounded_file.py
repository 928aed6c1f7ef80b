"""Reads a Parquet file with the default limits; prints the values of its column "a", or the error.

Prints then the number of threads that the reading started and that still run.
"""

import io
import os
import sys

from pipeline import parquet
from pipeline.parquet.bounded_file import BoundedFile


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


before = threads()
try:
    print(parquet.open_parquet(BoundedFile(io.FileIO(sys.argv[1]))).read(use_threads=False)["a"].to_pylist())
except ValueError as error:
    print(error)
print(threads() - before, "threads more")
