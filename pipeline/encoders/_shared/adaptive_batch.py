"""How much of a micro-batch fits into memory: half after each time that it ran out, more again while it goes well."""

from __future__ import annotations

_PATIENCE = 8
_MOST_PATIENCE = 256


class AdaptiveBatchSize:
    """``share`` of the config's micro-batch, in (0, 1].

    It doubles after ``patience`` passes that went well; each time that this was too early the patience doubles too, so
    that a batch which never fits is not tried all the time.
    """

    def __init__(self) -> None:
        self.share = 1.0
        self.patience = _PATIENCE
        self._good, self._on_trial = 0, False

    def of(self, amount: int) -> int:
        return max(1, int(amount * self.share))

    def halve(self) -> None:
        self.share /= 2

    def ran_out(self) -> None:
        if self._on_trial:
            self.patience = min(_MOST_PATIENCE, 2 * self.patience)
        self._good, self._on_trial = 0, False

    def went_well(self) -> None:
        self._good += 1
        if self._good >= self.patience:
            self._good, self._on_trial = 0, self.share < 1
            self.share = min(1.0, 2 * self.share)
