"""Maps the file PATH into memory, reads a byte of each page, prints "ready", and waits until standard input ends."""

import mmap
import sys

with open(sys.argv[1], "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
    for page in range(0, len(mapped), mmap.PAGESIZE):
        _ = mapped[page]
    print("ready", flush=True)
    sys.stdin.read()
