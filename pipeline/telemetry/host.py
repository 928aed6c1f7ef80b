"""Memory, disks and GPUs of this machine, as gauges."""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.core.system import devices
from pipeline.core.system.memory import available_memory
from pipeline.storage.urls import is_local, split
from pipeline.telemetry import metrics
from pipeline.telemetry.recording import Value

_LIBRARY = "libnvidia-ml.so.1"


class _Utilization(ctypes.Structure):
    """``nvmlUtilization_t``, in percent."""

    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


@cache
def _nvml() -> Any:
    """Returns the library of NVIDIA's driver, initialized; None if the machine has none."""
    if not devices.visible_gpus():
        return None
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(_LIBRARY)
        if library.nvmlInit_v2() == 0:
            return library
    return None


def device_gauges() -> Iterator[Value]:
    """Yields the busy share of each visible GPU, as its driver reports it. A device without this figure (MIG) is left
    out."""
    library = _nvml()
    for gpu in devices.visible_gpus() if library is not None else ():
        handle, used = ctypes.c_void_p(), _Utilization()
        if gpu.isdecimal():
            failed = library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(int(gpu)), ctypes.byref(handle))
        else:
            failed = library.nvmlDeviceGetHandleByUUID(gpu.encode(), ctypes.byref(handle))
        if not failed and library.nvmlDeviceGetUtilizationRates(handle, ctypes.byref(used)) == 0:
            yield metrics.DEVICE_BUSY, (gpu,), used.gpu / 100


def gauges(output: str) -> Iterator[Value]:
    """Yields all gauges of this machine. Arguments as for `disk_gauges`."""
    yield metrics.MEMORY_LIMIT, (), float(available_memory())
    yield from disk_gauges(output)
    yield from device_gauges()


def disk_gauges(output: str) -> Iterator[Value]:
    """Yields size and free space of the local disks of a run.

    Args:
        output: URL of the dataset. That of an object store has no disk.
    """
    places = {"temporary": tempfile.gettempdir()}
    if is_local(output):
        places["output"] = split(output)[1]
    for place, path in places.items():
        with suppress(OSError):
            disk = shutil.disk_usage(_existing(path))
            yield metrics.DISK_FREE, (place,), float(disk.free)
            yield metrics.DISK_SIZE, (place,), float(disk.total)


def _existing(path: str) -> Path:
    """Returns the nearest folder above ``path`` that exists, or ``path`` itself."""
    return next(one for one in (Path(path), *Path(path).parents) if os.path.exists(one))
