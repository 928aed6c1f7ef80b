"""Cuts a long text at words into spans that fit windows of tokens."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence

_WORD = re.compile(r"\S+")


class Cutter:
    """Cuts one text. The tokens of the whole text give an estimate of each span, and ``fits`` decides.

    Args:
        text: a text that does not fit one window.
        tokens: characters ``(start, end)`` of each token of the whole text, in order.
        max_tokens: tokens of a window, without special tokens and prompt.
        overlap: approximate number of tokens that neighbouring spans share.
        fits: returns True if a text, tokenized separately, fits one window.
    """

    def __init__(
        self, text: str, tokens: Sequence[tuple[int, int]], max_tokens: int, overlap: int, fits: Callable[[str], bool]
    ) -> None:
        self.text, self.max_tokens, self.overlap, self.fits = text, max_tokens, overlap, fits
        self.token_starts = [start for start, _ in tokens]
        self.token_ends = [end for _, end in tokens]
        words = [match.span() for match in _WORD.finditer(text)]
        self.word_starts = [start for start, _ in words]
        self.word_ends = [end for _, end in words]

    def spans(self) -> list[tuple[int, int]]:
        """Spans ``[start, end)`` of characters. Both starts and ends increase."""
        done: list[tuple[int, int]] = []
        start: int | None = self._next(0)
        while start is not None:
            end = self._end(start)
            if done and end <= done[-1][1]:  # the overlap fills the window
                start = self._next(done[-1][1])
                assert start is not None
                end = self._end(start)
            done.append((start, end))
            following = self._next(end)
            start = None if following is None else self._overlapping_start(start, end, following)
        return done

    def _next(self, position: int) -> int | None:
        """The first character from ``position`` on that is not white space; None if there is none."""
        word = bisect_right(self.word_ends, position)
        return max(position, self.word_starts[word]) if word < len(self.word_starts) else None

    def _end(self, start: int) -> int:
        """End of the longest span from ``start`` on that fits, about."""
        last = bisect_left(self.token_starts, start) + self.max_tokens
        end = self.token_ends[last - 1] if last < len(self.token_ends) else len(self.text)
        end = self._at_word(start, max(end, start + 1))
        while end > start + 1 and not self.fits(self.text[start:end]):
            end = self._at_word(start, max(start + 1, min(end - 1, start + (end - start) * 15 // 16)))
        return end

    def _at_word(self, start: int, end: int) -> int:
        """The last end of a word in ``(start, end]``; ``end`` itself within a word that is longer."""
        word = bisect_right(self.word_ends, end) - 1
        return self.word_ends[word] if word >= 0 and self.word_ends[word] > start else end

    def _overlapping_start(self, start: int, end: int, following: int) -> int:
        """Start of the next span: about ``overlap`` tokens before ``end``, at a word, after ``start``."""
        if not self.overlap:
            return following
        last = bisect_right(self.token_starts, end - 1)
        wanted = max(self.token_starts[max(0, last - self.overlap)], start + 1)
        word = bisect_right(self.word_starts, wanted - 1)
        if word < len(self.word_starts) and self.word_starts[word] < end:
            return self.word_starts[word]
        if following == end:  # within a word that is longer than a window
            return wanted
        begin = self.word_starts[word - 1]
        tokens = last - bisect_left(self.token_starts, begin)
        return begin if start < begin and tokens <= 2 * self.overlap else following
