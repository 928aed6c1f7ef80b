"""Which items share a forward pass: within bounds on their number and on what they hold once padded."""

from __future__ import annotations

from collections.abc import Sequence

ENOUGH_TOKENS = 512
"""With so many tokens in a pass a core is as fast as with more."""


def first_pass(lengths: Sequence[int], start: int, count: int, most: float | None) -> range:
    """The items from ``start`` on, at most ``count``, that hold at most ``most`` once padded to the longest of them; at
    least one."""
    longest = 0
    for i in range(start, min(start + count, len(lengths))):
        longest = max(longest, lengths[i])
        if i > start and most is not None and (i - start + 1) * longest > most:
            return range(start, i)
    return range(start, min(start + count, len(lengths)))


def tight(lengths: Sequence[int], group: range, enough: int, padding: float = 0.05) -> range:
    """``group``, of growing lengths, cut where more than the share ``padding`` of a pass would be padding, though not
    to less than ``enough`` units: with so many a core is as fast as with more."""
    held = 0
    for count, i in enumerate(group, start=1):
        padded = count * lengths[i]
        if held >= enough and padded - held - lengths[i] > padding * padded:
            return range(group.start, i)
        held += lengths[i]
    return group


def microbatches(lengths: Sequence[int], count: int, most: float | None) -> list[range]:
    """Consecutive items in groups of at most ``count`` that hold at most ``most`` once padded to the longest of the
    group. An item longer than ``most`` goes alone."""
    groups: list[range] = []
    while (start := groups[-1].stop if groups else 0) < len(lengths):
        groups.append(first_pass(lengths, start, count, most))
    return groups
