"""Arrays to an encoder's device and back, beside its arithmetic.

With CUDA they go through pinned host memory, on streams of their own: a copy overlaps the kernels of the pass that
another call has at work. The kernels of all calls go through one stream, so that what one of them left on the device (a
processor's means, a model's positions) is computed before another reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from pipeline.core.arrow import adjacent

if TYPE_CHECKING:
    import torch

_FLOAT32 = np.dtype(np.float32)
_MOST = float(np.finfo(np.float16).max)


def upload(array: np.ndarray, device: torch.device, dtype: torch.dtype | None = None) -> torch.Tensor:
    """``array`` there, as ``dtype``."""
    import torch

    tensor = torch.from_numpy(array)
    if device.type != "cuda":
        return tensor.to(device=device, dtype=dtype)
    return _sent(tensor.pin_memory(), device, dtype)


def upload_stacked(arrays: Sequence[np.ndarray], device: torch.device) -> torch.Tensor:
    """Arrays of one shape and dtype as one tensor [B, ...] there."""
    import torch

    if device.type != "cuda":
        return torch.from_numpy(np.stack(arrays)).to(device)
    dtype = torch.from_numpy(np.empty(0, arrays[0].dtype)).dtype
    pinned = torch.empty((len(arrays), *arrays[0].shape), dtype=dtype, pin_memory=True)
    if (whole := adjacent(arrays)) is not None:  # as rows of a table are
        np.copyto(pinned.numpy(), whole)
    else:
        np.stack(arrays, out=pinned.numpy())
    return _sent(pinned, device, None)


def download(values: torch.Tensor, dtype: np.dtype = _FLOAT32) -> np.ndarray:
    """``values`` on the host, once they are computed: as float16 if that is asked for and holds them all, else as
    float32."""
    import torch

    if dtype == np.float16 and values.numel():
        array, (least, most) = _received(values.half(), torch.stack(torch.aminmax(values)).float())
        if least >= -_MOST and most <= _MOST:  # not where a value is NaN
            return array
    (array,) = _received(values.float())
    return array


def _received(*values: torch.Tensor) -> list[np.ndarray]:
    import torch

    device = values[0].device
    values = tuple(one.contiguous() for one in values)  # by the stream that computes; a view would hold the whole
    if device.type != "cuda":
        return [one.cpu().numpy() for one in values]
    hosts = [torch.empty(one.shape, dtype=one.dtype, pin_memory=True) for one in values]
    _, down = _copying(device)
    down.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(down):
        for host, one in zip(hosts, values, strict=True):
            host.copy_(one, non_blocking=True)
        copied = down.record_event(torch.cuda.Event(blocking=True))  # type: ignore[no-untyped-call]
    copied.synchronize()
    return [host.numpy() for host in hosts]


def _sent(pinned: torch.Tensor, device: torch.device, dtype: torch.dtype | None) -> torch.Tensor:
    import torch

    up, _ = _copying(device)
    with torch.cuda.stream(up):
        there = pinned.to(device, non_blocking=True)
    computing = torch.cuda.current_stream(device)
    computing.wait_stream(up)
    there.record_stream(computing)  # its memory is not used again before that has read it
    return there if dtype is None else there.to(dtype)


@cache
def _copying(device: torch.device) -> tuple[torch.cuda.Stream, torch.cuda.Stream]:
    """To the device, and from it: two directions of one bus."""
    import torch

    return torch.cuda.Stream(device), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
