"""The GPUs that this process may use, found without a library."""

from __future__ import annotations

import glob
import os
from itertools import takewhile


def has_gpu() -> bool:
    """Returns whether this machine has the device file of any GPU: of NVIDIA, of WSL, of ROCm."""
    return bool(glob.glob("/dev/nvidia[0-9]*")) or os.path.exists("/dev/dxg") or os.path.exists("/dev/kfd")


def visible_gpus() -> list[str]:
    """Returns the NVIDIA GPUs, as ``CUDA_VISIBLE_DEVICES`` names them: those with a device file; if that variable is
    set, those that it names, up to the first one that is not there, as CUDA does."""
    there = len(glob.glob("/dev/nvidia[0-9]*"))
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return [str(number) for number in range(there)]
    names = [name.strip() for name in chosen.split(",")]
    found = takewhile(lambda name: name.startswith(("GPU-", "MIG-")) or (name.isdecimal() and int(name) < there), names)
    return list(found) if there else []
