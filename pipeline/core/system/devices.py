"""The GPUs that this process may use, found without a library."""

from __future__ import annotations

import glob
import os


def visible_gpus() -> list[str]:
    """Returns the NVIDIA GPUs, as ``CUDA_VISIBLE_DEVICES`` names them: with a device file, and in that variable if it
    is set."""
    there = len(glob.glob("/dev/nvidia[0-9]*"))
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return [str(number) for number in range(there)]
    return [name for name in chosen.split(",") if name.strip() not in ("", "-1", "NoDevFiles")][:there]
