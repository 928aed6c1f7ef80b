"""Prints the page faults of large buffers that are allocated and freed again; freed memory is kept with "keep"."""

import resource
import sys

from pipeline.core.system.allocator import keep_pages


def page_faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


if sys.argv[1] == "keep":
    keep_pages()
held = bytearray(b"x") * (24 << 20)  # glibc raises its own bound to what is freed once, but keeps a fixed one
del held
before = page_faults()
for _ in range(20):
    buffers = [bytearray(b"x") * (10 << 20) for _ in range(8)]
    del buffers
print(page_faults() - before)
