"""Groups items into forward passes, by limits on their number and on their padded size."""

from __future__ import annotations

from collections.abc import Sequence

SATURATING_TOKENS = 512
"""Tokens in one forward pass from which on a CPU core processes no more tokens per second."""


def next_group(lengths: Sequence[int], start: int, max_items: int, max_units: float | None) -> range:
    """The items of one forward pass, from ``start`` on; at least one.

    Args:
        lengths: units (tokens, samples...) of each item.
        max_items: maximum number of items.
        max_units: maximum of items x the longest item's length; None: no limit.
    """
    longest = 0
    for i in range(start, min(start + max_items, len(lengths))):
        longest = max(longest, lengths[i])
        if i > start and max_units is not None and (i - start + 1) * longest > max_units:
            return range(start, i)
    return range(start, min(start + max_items, len(lengths)))


def limit_padding(lengths: Sequence[int], group: range, min_units: int, max_padding: float = 0.05) -> range:
    """The longest beginning of ``group`` of which at most the share ``max_padding`` is padding.

    It is not cut to fewer than ``min_units`` units. The lengths in ``group`` must not decrease.
    """
    units = 0
    for count, i in enumerate(group, start=1):
        padded = count * lengths[i]
        if units >= min_units and padded - units - lengths[i] > max_padding * padded:
            return range(group.start, i)
        units += lengths[i]
    return group


def microbatches(lengths: Sequence[int], max_items: int, max_units: float | None) -> list[range]:
    """All items in consecutive groups (see ``next_group``). An item longer than ``max_units`` is a group by itself."""
    groups: list[range] = []
    while (start := groups[-1].stop if groups else 0) < len(lengths):
        groups.append(next_group(lengths, start, max_items, max_units))
    return groups
