"""Prints before, within and after ``stdout_to_stderr``: from Python, from native code and from a child process."""

import os
import subprocess

from pipeline.core.terminal import stdout_to_stderr

print("before")
try:
    with stdout_to_stderr():
        print("python")
        os.write(1, b"native\n")
        subprocess.run(["echo", "child"])
        raise ValueError
except ValueError:
    print("after")
