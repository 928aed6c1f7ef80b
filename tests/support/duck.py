"""DuckDB as a second reader, in a process of its own: beside other extension modules it reports leaks at exit."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

_CODE = """
import pickle, sys
import duckdb
with duckdb.connect() as connection:
    found = connection.sql(sys.argv[1])
    sys.stdout.buffer.write(pickle.dumps((found.columns, found.fetchall())))
"""


def query(sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Names of the columns, and rows."""
    done = subprocess.run([sys.executable, "-c", _CODE, sql], capture_output=True, check=True, timeout=120)
    columns, rows = pickle.loads(done.stdout)
    return columns, rows
