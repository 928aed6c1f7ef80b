"""Starts the program WORKER as an idle worker of Ray and writes a shard into FOLDER after 2 s."""

import subprocess
import sys
import time
from pathlib import Path

program, folder = sys.argv[1:]
worker = subprocess.Popen([sys.executable, program, "default_worker.py"])
time.sleep(1)
Path(folder, "a.parquet.tmp").touch()
time.sleep(1)
Path(folder, "a.parquet").touch()
worker.wait()
time.sleep(1)
