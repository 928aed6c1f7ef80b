"""Exports a dataset and prints the peak of its own memory in MB, without files that are mapped: DATASET OUT FORMAT."""

import sys
import threading
import time
from pathlib import Path

from pipeline import export
from pipeline.export.libraries import library

peak = 0


def watch() -> None:
    global peak
    while True:
        line = next(one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("RssAnon"))
        peak = max(peak, int(line.split()[1]) // 1024)
        time.sleep(0.01)


path, out, format = sys.argv[1:4]
library(format)
threading.Thread(target=watch, daemon=True).start()
export.export_dataset(path, out, format, limits=export.ShardLimits(bytes=64 << 20))  # type: ignore[arg-type]
print(peak)
