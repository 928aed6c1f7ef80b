"""The GPUs that this process may use, found without a library."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from contextlib import suppress
from itertools import takewhile


def has_gpu() -> bool:
    """Returns whether this machine has the device file of any GPU: of NVIDIA, of WSL, of ROCm."""
    return bool(glob.glob("/dev/nvidia[0-9]*")) or os.path.exists("/dev/dxg") or os.path.exists("/dev/kfd")


def gpu_names(gpus: Sequence[str]) -> list[str]:
    """Returns the distinct product names of NVIDIA GPUs, from the driver; [] if it has none.

    Args:
        gpus: from `visible_gpus`. The names of all GPUs of the machine are returned if they are not numbers.
    """
    found = {}
    for number, path in enumerate(sorted(glob.glob("/proc/driver/nvidia/gpus/*/information"))):
        with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
            models = [line.partition(":")[2].strip() for line in file if line.startswith("Model:")]
            found[str(number)] = models[0] if models else "unknown"
    chosen = [found[gpu] for gpu in gpus if gpu in found] or (list(found.values()) if gpus else [])
    return sorted(set(chosen))


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
