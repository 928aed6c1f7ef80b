"""Prints what the process PID, which is no child, adds to the memory; and what a pid without a process adds."""

import sys

from pipeline.engine.memory import memory_of_processes

other, no_process = int(sys.argv[1]), 2**22 + 1
print(
    memory_of_processes([other]) - memory_of_processes(),
    memory_of_processes([no_process]) - memory_of_processes(),
)
