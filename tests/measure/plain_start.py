"""What a plain Ray Data script takes before its first rows are written: `python -m tests.measure.plain_start`.

It does what such a script cannot leave out: starts Ray here, starts an actor a core that imports torch and
`transformers`, maps a few rows, and writes them as Parquet. Start-up of `tessera extract` is to be seen beside it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress

import psutil

from tests.support import ROOT


def main() -> None:
    started = time.time()
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.measure.programs.write_with_ray", folder],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        spent: dict[int, float] = {}
        while process.poll() is None:
            with suppress(psutil.Error):
                for one in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
                    times = one.cpu_times()
                    spent[one.pid] = times.user + times.system
            time.sleep(0.2)
        written = sum(name.endswith(".parquet") for name in os.listdir(folder))
    print(f"{len(spent)} processes, {sum(spent.values()):.1f} s CPU, {time.time() - started:.1f} s; {written} files")


if __name__ == "__main__":
    main()
