"""Exports a dataset and stops after the second batch: DATASET OUT FORMAT STARTED. Creates STARTED there."""

import sys
import time
from pathlib import Path

import typer

from jobs._console import run_app
from pipeline import export

path, out, format, started = sys.argv[1:5]
batches = 0


def report(line: str) -> None:
    global batches
    batches += 1
    if batches == 3:
        Path(started).touch()
        time.sleep(100)


app = typer.Typer()


@app.command()
def main() -> None:
    export.export_dataset(path, out, format, limits=export.ShardLimits(rows=50), report=report)  # type: ignore[arg-type]


del sys.argv[1:]
run_app(app)
