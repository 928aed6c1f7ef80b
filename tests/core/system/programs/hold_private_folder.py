"""Makes a private folder in PLACE, prints its path, and holds it until standard input ends."""

import sys

from pipeline.core.system import private_folder

print(private_folder.make("x", sys.argv[1]), flush=True)
sys.stdin.read()
