"""Stages of no media. They import little: many tests start processes of them."""

from __future__ import annotations

import gc
import importlib
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa

from pipeline.core.errors import ConfigError, DeviceFailed, SampleError
from pipeline.sandbox import StageContext, Task
from tests.sandbox.faults import FAULTS, HELD_S


def prepare(what: str) -> tuple[str, int]:
    """What a fork server does first: imports a module, or fails."""
    if what == "wrong":
        raise ConfigError("a.b", "found wrong", "right")
    if what in FAULTS:
        FAULTS[what]()
    if what == "threads":
        threading.Thread(target=time.sleep, args=(HELD_S,), daemon=True).start()
        return what, os.getpid()
    importlib.import_module(what)
    return what, os.getpid()


def heap_may_be_huge() -> bool:
    """Whether malloc has asked the kernel for huge pages."""
    with open("/proc/self/smaps", encoding="utf-8") as file:
        lines = iter(file)
        next(line for line in lines if line.endswith("[heap]\n"))
        return "hg" in next(line for line in lines if line.startswith("VmFlags:")).split()


class Plain:
    """A stage of no media: the table's ``do`` column says what it does, once for each table."""

    def __init__(self, setup: str = "") -> None:
        self.context = StageContext()
        self.broken = setup

    def setup(self) -> None:
        if self.broken == "raise":
            raise ImportError("no module named 'codec'")
        if self.broken:
            os.write(2, b"libcodec.so.9: cannot open shared object file\n")
            FAULTS[self.broken]()

    def __call__(self, table: pa.Table) -> pa.Table:
        os.write(1, b"noise\n")
        os.write(2, b"noise\n")
        for value in table["do"].to_pylist():
            if value == "raise":
                raise ValueError("a defect")
            if value == "pid":
                table = table.append_column("pid", pa.array([os.getpid()] * len(table)))
            elif value == "modules":
                reported = {
                    "colorsys": "colorsys" in sys.modules,
                    "pandas": "pandas" in sys.modules,
                    "numpy.ma": "numpy.ma" in sys.modules,
                    "huge": heap_may_be_huge(),
                    "collects": gc.isenabled(),
                    "environment": os.environ.get("TESSERA_TEST"),
                    "folder": os.getcwd(),
                }
                for name, one in reported.items():
                    table = table.append_column(name, pa.array([one] * len(table)))
            elif value == "storage":
                table = table.append_column("is", pa.array([fsspec.get_filesystem_class("faulty").__name__]))
            elif value == "nap":
                time.sleep(0.05)
            elif value == "wait":
                time.sleep(HELD_S)
            elif value in FAULTS:
                FAULTS[value]()
        return table


class Starter:
    """Starts a program as the table's ``do`` column says, under its guard, and writes its pid into ``reported``.

    Then it hangs, or dies, as the column ``then`` says.
    """

    PROGRAM = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"

    def __init__(self, reported: str) -> None:
        self.context = StageContext()
        self.reported = reported

    def setup(self) -> None:
        """Nothing to load."""

    def __call__(self, table: pa.Table) -> pa.Table:
        for number, (do, then) in enumerate(zip(table["do"].to_pylist(), table["then"].to_pylist(), strict=True)):
            with suppress(SampleError), self.context.guard(Task(number, "decode", "x", str(number))):
                if do:
                    self._start(do)
                if then:
                    FAULTS[then]()
        return table

    def _start(self, how: str) -> None:
        program = [sys.executable, "-c", self.PROGRAM, self.reported]
        if how == "orphan":  # of a session of its own, and its parent is gone
            middle = "import subprocess, sys; subprocess.Popen(sys.argv[1:], start_new_session=True)"
            subprocess.run([sys.executable, "-c", middle, *program], check=True)
        else:
            subprocess.Popen(program)
        while not (os.path.exists(self.reported) and os.path.getsize(self.reported)):
            time.sleep(0.01)


class Greedy:
    """Does what the table's ``do`` column says, a row each: "keep 9" 9 MiB in a work, "take 9" as much for itself,
    "column" one that is handed over, "wait" a while."""

    def __init__(self) -> None:
        self.context = StageContext()
        self.kept: list[Any] = []

    def setup(self) -> None:
        """Nothing to load."""

    def __call__(self, table: pa.Table) -> pa.Table:
        for number, (what, *size) in enumerate(map(str.split, table["do"].to_pylist())):
            if what == "keep":
                with self.context.guard(Task(number, "decode", "x", str(number))):
                    self.kept.append(np.ones(int(size[0]) << 20, np.uint8))
            elif what == "take":
                np.ones(int(size[0]) << 20, np.uint8)
            elif what == "column":
                self.context.allocate(1 << 20, np.dtype(np.uint8))
            else:
                time.sleep(0.05)
        return table


class Busy:
    """Uses ``seconds`` of CPU time for each row, under its watch."""

    def __init__(self, seconds: float) -> None:
        self.context = StageContext()
        self.seconds = seconds

    def setup(self) -> None:
        """Nothing to load."""

    def __call__(self, table: pa.Table) -> pa.Table:
        for number in range(len(table)):
            with self.context.guard(Task(number, "decode", "x", str(number))):
                end = time.process_time() + self.seconds
                while time.process_time() < end:
                    pass
        return table


class Guarded:
    """Runs a task for each row. Rows with ``abort`` in their ``do`` column end the process."""

    def __init__(self) -> None:
        self.context = StageContext()

    def setup(self) -> None:
        """Nothing to load."""

    def __call__(self, table: pa.Table) -> pa.Table:
        results = []
        for number, (n, do) in enumerate(zip(table["n"].to_pylist(), table["do"].to_pylist(), strict=True)):
            try:
                with self.context.guard(Task(number, "decode", "x", str(n))):
                    if do == "abort":
                        os.abort()
                results.append("done")
            except SampleError as error:
                results.append(error.kind)
        return table.append_column("result", pa.array(results))


class Journaled:
    """Maps tables at once, or row by row with a journal. Rows with ``abort`` in their ``do`` column end the process."""

    context = StageContext()

    def setup(self) -> None: ...

    def __call__(self, table: pa.Table, journal: Any = None) -> pa.Table:
        results = []
        for number, row in enumerate(table.to_pylist()):
            try:
                if journal is not None:
                    journal.begin_row(number, "f", row["sample_id"], row["window"])
                if row["do"] == "abort":
                    os.abort()
                results.append("done")
            except SampleError as error:
                results.append(error.kind)
        if journal is not None:
            journal.end_work()
        return table.append_column("result", pa.array(results))


class Concurrent:
    """Maps tables in several threads. What it does with a table is in the first row's ``do``.

    - ``meet``: waits until another thread does so too.
    - ``alone``: given a journal, takes a while and records how many calls there were meanwhile.
    - ``once``: ends the process, unless its file exists.
    - ``device``: fails as a broken device does, together with another thread; not with a journal.
    - ``exit``: ends the thread as ``sys.exit`` does.
    """

    context = StageContext()

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def setup(self) -> None:
        self.both, self.calls = threading.Barrier(2, timeout=20), 0

    def __call__(self, table: pa.Table, journal: Any = None) -> pa.Table:
        self.calls += 1
        seen = self.calls
        try:
            do = table["do"][0].as_py()
            if journal is not None:
                journal.begin_row(0, "f", table["sample_id"][0].as_py(), 0)
            if do == "meet" and journal is None:
                self.both.wait()
            if do == "alone" and journal is not None:
                time.sleep(0.5)
                seen = self.calls
            if do in ("once", "alone") and not self.marker.exists():
                self.both.wait()
                self.marker.touch()
                os.abort()
            if do == "device" and journal is None:
                self.both.wait()
                raise DeviceFailed("the device failed", "CUDA error")
            if do == "exit":
                sys.exit(3)
            if journal is not None:
                journal.end_work()
            values = self.context.allocate(1 << 18, np.dtype(np.float32))
            values[:] = float(table["sample_id"][0].as_py())
            return (
                table.append_column("thread", pa.array([threading.get_ident()]))
                .append_column("seen", pa.array([seen]))
                .append_column("values", pa.FixedSizeListArray.from_arrays(pa.array(values), len(values)))
            )
        finally:
            self.calls -= 1
