"""Runs rows through a model in micro-batches.

Rows that may share a batch are grouped. Batches get smaller where memory runs out.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.core.errors import SampleError, describe, out_of_memory
from pipeline.core.system.read_write_lock import ReadWriteLock
from pipeline.encoders._shared.adaptive_batch import AdaptiveBatchSize
from pipeline.encoders._shared.microbatches import limit_padding, next_group
from pipeline.tokenizers.base import ModelInputs

if TYPE_CHECKING:
    import torch

    from pipeline.encoders.base import Encoded

_PASSES = ReadWriteLock()
"""Forward passes of this process. A pass that needs all memory, or that compiles kernels, takes it for writing."""


@dataclass(frozen=True)
class OutOfMemory:
    """A pass ran out of memory; ``message`` is the error in one line."""

    message: str


@dataclass(frozen=True)
class PassLimits:
    """Limits of one forward pass, before they are scaled to the memory available."""

    max_rows: int
    """Rows, or pieces of rows."""
    max_units: float | None
    """Units of ``length``, padding included; None: no limit."""
    saturating_units: int | None
    """Passes of at least this many units are cut further to reduce padding; None: they are not cut."""
    splits_rows: bool
    """True if ``forward`` runs one row in steps of ``max_rows`` pieces."""


@dataclass(frozen=True)
class MicroBatcher:
    """Runs the rows of one ``encode`` call.

    ``batch_size`` and ``compiled_shapes`` belong to the encoder and are shared by all its calls.
    """

    forward: Callable[[Sequence[ModelInputs], bool], list[Encoded | SampleError]]
    """``(rows of one bucket, want_tokens)`` to one result per row."""
    bucket: Callable[[ModelInputs], Hashable]
    """Rows of equal bucket may share a batch."""
    length: Callable[[ModelInputs], int]
    limits: PassLimits
    batch_size: AdaptiveBatchSize
    compiled_shapes: set[Hashable] | None
    """Shapes of passes whose kernels are compiled; None if the model is not compiled."""
    device: torch.device

    def run(self, rows: Sequence[ModelInputs], want_tokens: bool) -> list[Encoded | SampleError]:
        """One result per row, in the order given. Within a bucket, rows are batched in order of length.

        If memory runs out the micro-batch is halved; later calls double it again. A row that does not fit by itself
        gives a ``SampleError`` (``memory``).
        """
        results: list[Encoded | SampleError | None] = [None] * len(rows)
        buckets: dict[Hashable, list[int]] = {}
        for index, row in enumerate(rows):
            buckets.setdefault(self.bucket(row), []).append(index)
        for members in buckets.values():
            members.sort(key=lambda i: self.length(rows[i]))
            ordered = [rows[i] for i in members]
            for index, encoded in zip(members, self._run_bucket(ordered, want_tokens), strict=True):
                results[index] = encoded
        return [row for row in results if row is not None]

    def _run_bucket(self, rows: Sequence[ModelInputs], want_tokens: bool) -> Iterator[Encoded | SampleError]:
        """Results of the rows of one bucket, which are ordered by length."""
        lengths = [self.length(row) for row in rows]
        start = 0
        while start < len(rows):
            share = self.batch_size.share
            group = self._next_group(lengths, start)
            result = self._try_pass([rows[i] for i in group], want_tokens)
            if isinstance(result, OutOfMemory) and len(group) > 1:
                self._shrink(lengths, group, share)
                continue
            if isinstance(result, OutOfMemory):
                result = [self._retry_row(rows[start], want_tokens, result)]
            yield from result
            start = group.stop

    def _next_group(self, lengths: Sequence[int], start: int) -> range:
        limits, share = self.limits, self.batch_size.share
        max_units = None if limits.max_units is None else limits.max_units * share
        group = next_group(lengths, start, self.batch_size.scale(limits.max_rows), max_units)
        if limits.saturating_units and self.device.type == "cpu":
            return limit_padding(lengths, group, limits.saturating_units)
        return group

    def _shrink(self, lengths: Sequence[int], group: range, share: float) -> None:
        """Halves the batch size until the next group has at most half the rows of ``group``, which did not fit.

        Args:
            share: the batch size's share when ``group`` was formed.
        """
        if self.batch_size.share >= share:  # otherwise another call has halved it in the meantime
            self.batch_size.halve()
        while not self.limits.splits_rows and len(self._next_group(lengths, group.start)) > len(group) // 2:
            self.batch_size.halve()

    def _retry_row(self, row: ModelInputs, want_tokens: bool, failure: OutOfMemory) -> Encoded | SampleError:
        """Runs one row that did not fit again: while no other call uses memory, then in smaller and smaller pieces."""
        halvings = 0
        if self.device.type == "cuda":
            result = self._try_pass([row], want_tokens, exclusive=True)
            if not isinstance(result, OutOfMemory):
                return result[0]
        while self.limits.splits_rows and self.batch_size.scale(self.limits.max_rows) > 1:
            self.batch_size.halve()
            halvings += 1
            result = self._try_pass([row], want_tokens, exclusive=True)
            if not isinstance(result, OutOfMemory):
                return result[0]
        self.batch_size.share = min(1.0, self.batch_size.share * 2**halvings)  # other rows may be smaller
        return SampleError("memory", failure.message)

    def _try_pass(
        self, rows: Sequence[ModelInputs], want_tokens: bool, exclusive: bool = False
    ) -> list[Encoded | SampleError] | OutOfMemory:
        """Runs one pass; with ``exclusive`` while no other pass of this process runs."""
        import torch

        shape = None if self.compiled_shapes is None else self._shape(rows)
        compiles = self.compiled_shapes is not None and shape not in self.compiled_shapes
        with _PASSES.write() if exclusive or compiles else _PASSES.read():
            try:
                encoded = self.forward(rows, want_tokens)
                self.batch_size.record_success()
                if self.compiled_shapes is not None:
                    self.compiled_shapes.add(shape)
                return encoded
            except Exception as error:
                if not out_of_memory(error):
                    raise
                failure = OutOfMemory(describe(error))
            # After the except block, because the exception references the tensors of the failed pass.
            self.batch_size.record_out_of_memory()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        return failure

    def _shape(self, rows: Sequence[ModelInputs]) -> Hashable:
        """The shape that kernels are compiled for. While they are, no other pass may run through the same layers."""
        pieces = sum(len(array) for row in rows for array in row.inputs.values()) if self.limits.splits_rows else 0
        return (len(rows), self.bucket(rows[-1]), self.length(rows[-1]), pieces)
