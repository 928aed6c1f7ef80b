"""What hostile media make native code do."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

HELD_S = 30


def segfault() -> None:
    ctypes.string_at(0)


def hold_the_gil() -> None:
    """`sleep` called as C code that never lets the GIL go."""
    ctypes.PyDLL(None).sleep(HELD_S)


def backtrack() -> None:
    """The regular expression engine neither lets the GIL go nor looks for signals."""
    re.match(r"(a+)+$", "a" * 40 + "b")


def spin() -> None:
    while True:
        pass


def take_pages() -> None:
    """malloc and memset, in C."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    while True:
        memory = libc.malloc(ctypes.c_size_t(16 << 20))
        if memory:
            libc.memset(ctypes.c_void_p(memory), 1, ctypes.c_size_t(16 << 20))


def take_arrays() -> None:
    held = []
    while True:
        held.append(np.ones(2 << 20))


def take_untouched() -> None:
    """Memory that only its limit knows of, taken to the last byte, and kept."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    for size in (1 << 24, 1 << 16, 1 << 10, 1 << 4):
        while libc.malloc(ctypes.c_size_t(size)):
            pass
    raise MemoryError("malloc returned NULL")


def take_at_once() -> None:
    np.ones(1 << 40, np.uint8)


def kill_oneself() -> None:
    """What the kernel does to a process when memory is short."""
    os.kill(os.getpid(), signal.SIGKILL)


FAULTS: dict[str, Callable[[], Any]] = {
    "abort": os.abort,
    "segfault": segfault,
    "gil": hold_the_gil,
    "regex": backtrack,
    "spin": spin,
    "pages": take_pages,
    "arrays": take_arrays,
    "atonce": take_at_once,
    "untouched": take_untouched,
    "exit": lambda: ctypes.CDLL(None).exit(3),
    "sysexit": lambda: sys.exit(3),
    "kill": kill_oneself,
}
