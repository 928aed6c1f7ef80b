"""Runs the commands of a JSON file, one after the other in this process, and prints each exit code."""

import json
import sys
from pathlib import Path

from jobs import cli

for args in json.loads(Path(sys.argv[1]).read_text()):
    sys.argv = ["tessera", *args]
    try:
        cli.main()
    except SystemExit as stop:
        print(f"-- exit {stop.code}", flush=True)
