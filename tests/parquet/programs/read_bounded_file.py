"""Reads a Parquet file with the default limits; prints the values of its column "a", or the error."""

import io
import sys

from pipeline import parquet
from pipeline.parquet.bounded_file import BoundedFile

try:
    print(parquet.open_parquet(BoundedFile(io.FileIO(sys.argv[1]))).read()["a"].to_pylist())
except ValueError as error:
    print(error)
