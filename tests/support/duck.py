"""DuckDB as a second reader, in a process of its own: beside other extension modules it reports leaks at exit."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

from tests.support import ROOT


def query(sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Names of the columns, and rows."""
    command = [sys.executable, "-m", "tests.support.programs.query_duckdb", sql]
    done = subprocess.run(command, capture_output=True, check=True, timeout=120, cwd=ROOT)
    columns, rows = pickle.loads(done.stdout)
    return columns, rows
