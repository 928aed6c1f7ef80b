"""Copies arrays to an encoder's device and results back, while the device computes.

With CUDA, copies use pinned host memory and separate streams: a copy overlaps the kernels of another call's pass. The
kernels of all calls run on one stream, so that tensors that one call leaves on the device (a processor's means, a
model's positions) are computed before another call reads them.
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
_FLOAT16_MAX = float(np.finfo(np.float16).max)


def upload(array: np.ndarray, device: torch.device, dtype: torch.dtype | None = None) -> torch.Tensor:
    """``array`` as a tensor on ``device``, converted to ``dtype``; None: the array's dtype."""
    import torch

    tensor = torch.from_numpy(array)
    if device.type != "cuda":
        return tensor.to(device=device, dtype=dtype)
    return _copy_to_device(tensor.pin_memory(), device, dtype)


def upload_stacked(arrays: Sequence[np.ndarray], device: torch.device) -> torch.Tensor:
    """Arrays of one shape and dtype as one tensor [B, ...] on ``device``."""
    import torch

    if device.type != "cuda":
        return torch.from_numpy(np.stack(arrays)).to(device)
    dtype = torch.from_numpy(np.empty(0, arrays[0].dtype)).dtype
    pinned = torch.empty((len(arrays), *arrays[0].shape), dtype=dtype, pin_memory=True)
    if (stacked := adjacent(arrays)) is not None:  # already contiguous, as rows of a table are
        np.copyto(pinned.numpy(), stacked)
    else:
        np.stack(arrays, out=pinned.numpy())
    return _copy_to_device(pinned, device, None)


def download(values: torch.Tensor, dtype: np.dtype = _FLOAT32) -> np.ndarray:
    """``values`` on the host; waits until they are computed.

    Args:
        dtype: float16: the result is float16 if all values are finite in it, else float32.
    """
    import torch

    if dtype == np.float16 and values.numel():
        array, (low, high) = _copy_to_host(values.half(), torch.stack(torch.aminmax(values)).float())
        if low >= -_FLOAT16_MAX and high <= _FLOAT16_MAX:  # false if any value is NaN
            return array
    (array,) = _copy_to_host(values.float())
    return array


def _copy_to_host(*values: torch.Tensor) -> list[np.ndarray]:
    import torch

    device = values[0].device
    values = tuple(one.contiguous() for one in values)  # on the computing stream; a view would copy the whole tensor
    if device.type != "cuda":
        return [one.cpu().numpy() for one in values]
    hosts = [torch.empty(one.shape, dtype=one.dtype, pin_memory=True) for one in values]
    _, down = _copy_streams(device)
    down.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(down):
        for host, one in zip(hosts, values, strict=True):
            host.copy_(one, non_blocking=True)
        copied = down.record_event(torch.cuda.Event(blocking=True))  # type: ignore[no-untyped-call]  # untyped in torch
    copied.synchronize()
    return [host.numpy() for host in hosts]


def _copy_to_device(pinned: torch.Tensor, device: torch.device, dtype: torch.dtype | None) -> torch.Tensor:
    import torch

    up, _ = _copy_streams(device)
    with torch.cuda.stream(up):
        copied = pinned.to(device, non_blocking=True)
    computing = torch.cuda.current_stream(device)
    computing.wait_stream(up)
    copied.record_stream(computing)  # so that its memory is not reused before that stream has read it
    return copied if dtype is None else copied.to(dtype)


@cache
def _copy_streams(device: torch.device) -> tuple[torch.cuda.Stream, torch.cuda.Stream]:
    """One stream for copies to the device and one for copies from it, which can run at the same time."""
    import torch

    return torch.cuda.Stream(device), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # untyped in torch
