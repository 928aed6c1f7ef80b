"""Allocates a buffer of BYTES, prints "ready", and holds it until standard input ends."""

import sys

buffer = bytearray(b"x") * int(sys.argv[1])
print("ready", flush=True)
sys.stdin.read()
