"""Runs the query SQL in DuckDB; writes the names of the columns and the rows to standard output, pickled."""

import pickle
import sys

import duckdb

with duckdb.connect() as connection:
    found = connection.sql(sys.argv[1])
    sys.stdout.buffer.write(pickle.dumps((found.columns, found.fetchall())))
