"""Prints how many MB it takes to find out that a Parquet file's footer is broken."""

import resource
import sys

from pipeline import parquet

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with open(sys.argv[1], "rb") as file:
    try:
        parquet.open_parquet(file)
    except OSError:
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before >> 10)
