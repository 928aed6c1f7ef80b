"""The GPUs that this process may use, found without a library."""

from __future__ import annotations

import glob
import os


def visible_gpus() -> int:
    """Returns the number of NVIDIA GPUs: with a device file, and in ``CUDA_VISIBLE_DEVICES`` if that is set."""
    there = len(glob.glob("/dev/nvidia[0-9]*"))
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return there
    names = [name for name in chosen.split(",") if name.strip() not in ("", "-1", "NoDevFiles")]
    return min(there, len(names))
