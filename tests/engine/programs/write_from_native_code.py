"""Writes to standard error from native code and from Python: before, within and after ``quiet``."""

import ctypes
import sys

from pipeline.engine.progress import quiet

libc = ctypes.CDLL(None)
libc.dprintf(2, b"before\n")
with quiet() as terminal:
    libc.dprintf(2, b"native noise\n")
    sys.stderr.write("half a line from Python")
    print("the bar", file=terminal)
libc.dprintf(2, b"after\n")
print("Python again", file=sys.stderr)
