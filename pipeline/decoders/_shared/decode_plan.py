"""Decides which pictures of a video stream need to be decoded, so that the decoder can skip the others.

Most pictures of a stream are not shown at any requested instant. In H.264, a picture with ``nal_ref_idc`` 0 (most B
pictures) is not a reference of any other picture, so it can be skipped.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np

CODECS = ("h264",)
"""Codecs whose packets state reliably that no other picture refers to theirs. HEVC states it for one layer only."""
_AHEAD_PACKETS, _AHEAD_BYTES = 32, 1 << 25
"""Packets, and their bytes, that are read ahead of the decoder to find the picture that is shown next. If that is too
few, fewer pictures are skipped; the result is the same."""


class DecodePlan:
    """Sets the codec's ``skip_frame`` for each packet. Times are seconds from ``start_s``.

    Args:
        instants: requested times, increasing.
        start_s: start of the container, absolute seconds.
        tolerance_s: a picture that begins up to this long after an instant counts as shown at it.
        codec: PyAV's codec context of the stream.
    """

    def __init__(self, instants: np.ndarray, start_s: float, tolerance_s: float, codec: Any) -> None:
        self.instants, self.start_s, self.tolerance_s, self.codec = instants, start_s, tolerance_s, codec
        self.stamps: list[float] = []
        """Presentation times of the pictures whose packets were read, in order."""
        self.is_off = False
        """True once a packet may hold less than a picture, such as a field of an interlaced one. Then all pictures are
        decoded."""

    def set_instants(self, instants: np.ndarray) -> None:
        """Sets the instants of another window. None of them may be before the previous window's last."""
        self.instants = instants
        del self.stamps[: max(0, bisect_right(self.stamps, instants[0] + self.tolerance_s) - 1)]

    def filter_packets(self, packets: Iterator[Any]) -> Iterator[Any]:
        """Yields the packets in order. Before each, sets whether the codec may skip its picture."""
        ahead: deque[Any] = deque()
        end: BaseException | None = None
        ahead_bytes = 0
        while ahead or end is None:
            while end is None and len(ahead) <= _AHEAD_PACKETS and ahead_bytes <= _AHEAD_BYTES:
                try:
                    packet = next(packets)
                except StopIteration as error:
                    end = error
                except Exception as error:  # raised after the packets that were read before it
                    end = error
                else:
                    ahead.append(packet)
                    ahead_bytes += packet.size
                    self.is_off |= packet.pts is None and packet.size > 0
                    if packet.pts is not None and not packet.is_discard:
                        insort(self.stamps, self._time(packet))
            if ahead:
                packet = ahead.popleft()
                ahead_bytes -= packet.size
                self.codec.skip_frame = "DEFAULT" if self._is_needed(packet) else "NONREF"
                yield packet
        if not isinstance(end, StopIteration):
            raise end

    def _time(self, packet: Any) -> float:
        return float(packet.pts * packet.time_base) - self.start_s

    def _is_needed(self, packet: Any) -> bool:
        """True if the packet's picture is shown at a requested instant.

        Also true for a picture after all instants, which the next window may request, and for the first picture, which
        is used for instants before it.
        """
        if self.is_off or packet.pts is None or packet.is_discard:
            return True
        time_s = self._time(packet)
        after = bisect_right(self.stamps, time_s)
        if after >= len(self.stamps) or self.stamps[0] == time_s or time_s > self.instants[-1] + self.tolerance_s:
            return True
        first, stop = np.searchsorted(self.instants, (time_s - self.tolerance_s, self.stamps[after] - self.tolerance_s))
        return bool(stop > first)

    def matches(self, times: list[float]) -> bool:
        """True if pictures at ``times`` are those that, by the packets, are shown at the instants."""
        if self.is_off or not self.stamps:
            return False
        stamps = np.array(self.stamps)
        index = np.maximum(np.searchsorted(stamps - self.tolerance_s, self.instants, side="right") - 1, 0)
        expected = stamps[index]
        return len(times) == len(expected) and bool(np.all(np.abs(expected - times) < self.tolerance_s))
