"""Batch size that adapts to the memory available: halved when memory runs out, doubled after a run of successes."""

from __future__ import annotations

_PATIENCE = 8
_MAX_PATIENCE = 256


class AdaptiveBatchSize:
    """The ``share`` of the configured batch size, in (0, 1], that fits into memory.

    ``share`` doubles after ``patience`` consecutive successful passes. If memory runs out right after it doubled,
    ``patience`` doubles too, so that a batch size that never fits is tried less and less often.
    """

    def __init__(self) -> None:
        self.share = 1.0
        self.patience = _PATIENCE
        self._successes, self._has_just_doubled = 0, False

    def scale(self, amount: int) -> int:
        """``amount`` times ``share``, at least 1."""
        return max(1, int(amount * self.share))

    def halve(self) -> None:
        self.share /= 2

    def record_out_of_memory(self) -> None:
        if self._has_just_doubled:
            self.patience = min(_MAX_PATIENCE, 2 * self.patience)
        self._successes, self._has_just_doubled = 0, False

    def record_success(self) -> None:
        self._successes += 1
        if self._successes >= self.patience:
            self._successes, self._has_just_doubled = 0, self.share < 1
            self.share = min(1.0, 2 * self.share)
