"""Runs a module as a program in a bounded address space: BYTES MODULE [ARGUMENT]... Prints its peak of memory in MB."""

import resource
import runpy
import sys

most_bytes, module = int(sys.argv[1]), sys.argv[2]
resource.setrlimit(resource.RLIMIT_AS, (most_bytes, most_bytes))
del sys.argv[1:3]
runpy.run_module(module, run_name="__main__", alter_sys=True)
with open("/proc/self/status") as status:  # getrusage counts also what this process had before it ran Python
    print("PEAK", *(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM")))
