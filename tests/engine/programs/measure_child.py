"""Prints the peak of memory while a child process held 200 MB, and what is used after its end; both less the start."""

import time

from pipeline.engine.memory import MemoryMeter
from tests.engine.programs._metering import child_process, used_bytes

before = used_bytes()
with MemoryMeter(0.02) as meter:
    with child_process("tests.engine.programs.hold_buffer", 200_000_000):
        time.sleep(0.3)
    time.sleep(0.2)
print(meter.peak - before, used_bytes() - before)
