"""Prints how much memory three child processes add that map the same file PATH."""

import sys
import time

from pipeline.engine.memory import MemoryMeter
from tests.engine.programs._metering import child_process, used_bytes

before = used_bytes()
program = ("tests.engine.programs.map_file", sys.argv[1])
with MemoryMeter(0.02) as meter, child_process(*program), child_process(*program), child_process(*program):
    time.sleep(0.3)
print(meter.peak - before)
