"""Cuts a duration into windows."""

from __future__ import annotations

import math

from pipeline.config.models import WindowConfig
from pipeline.core.errors import SampleError
from pipeline.core.media import at_least_a_tick


def cut(end_s: float, window: WindowConfig, tick_s: float = 1e-6) -> list[tuple[float, float]]:
    """Returns windows ``[start_s, end_s)`` that cover ``[0, end_s)``; the last one ends where the media ends.

    Starts are multiples of ``length_s - overlap_s``, computed by multiplication so that they do not drift. A remainder
    that is shorter than a tick makes no window.

    Args:
        end_s: end of the media, in seconds.
        window: length, overlap, tail and maximum number of the windows.
        tick_s: resolution of the clock of ``end_s``, in seconds.

    Raises:
        SampleError: ``limit``, more than ``max_windows``.
    """
    length = window.length_s
    if length is None or not at_least_a_tick(end_s - length, tick_s):
        if length is not None and at_least_a_tick(length - end_s, tick_s) and window.tail == "drop":
            return []
        return [(0.0, end_s if length is None else min(end_s, length))]
    step = length - window.overlap_s
    if not (end_s - window.overlap_s - tick_s) / step < window.max_windows:
        raise SampleError("limit", f"{end_s:.6g} s make more than {window.max_windows} windows: see window.max_windows")
    count = max(1, math.ceil((end_s - window.overlap_s) / step))
    if count > 1 and not at_least_a_tick(end_s - window.overlap_s - (count - 1) * step, tick_s):
        count -= 1
    windows = [(i * step, min((i + 1) * step + window.overlap_s, end_s)) for i in range(count)]
    last_start, last_end = windows[-1]
    if at_least_a_tick(length - (last_end - last_start), tick_s):
        if window.tail == "drop":
            windows.pop()
        elif window.tail == "merge":
            windows.pop()
            windows[-1] = (windows[-1][0], end_s)
    return windows
