"""Runs ``tessera extract CONFIG --plan`` where Ray Data has registered its extension types; prints the exit code."""

import importlib
import sys

from jobs import cli

importlib.import_module("ray.data")
sys.argv = ["tessera", "extract", sys.argv[1], "--plan"]
try:
    cli.main()
except SystemExit as end:
    print("END", end.code)
