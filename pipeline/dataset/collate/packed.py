"""PackedCollate: the values of all rows one after the other, for attention over sequences of any lengths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline.core.errors import ConfigError
from pipeline.dataset.collate.column import tensor
from pipeline.dataset.collate.ragged import Ragged, mask, padded

if TYPE_CHECKING:
    from pipeline.dataset.collate.padded import Batch, Collate


@dataclass(frozen=True)
class PackedCollate:
    """Converts many rows to one batch of tensors in which tokens, token ids and times are not padded. Picklable.

    A row is a *document*. For a column ``c`` of tokens, token ids or times the batch has, without ``length``:

    - ``c``: [M] or [M, d], the values of all documents, M in all.
    - ``c_cu_seqlens``: [B + 1] int32, the first value of each document, then M: flash-attn's ``cu_seqlens_q``, and
      torch's `varlen_attn`.
    - ``c_max_seqlen``: int, values of the longest document.
    - ``c_position_ids``: [M] int64, counted from 0 in each document.
    - ``c_document_ids``: [M] int32, the number of the row in the batch: a mask of documents for `flex_attention`.
    - ``c_valid``: [B] bool, False for nulls, which have no values.

    With ``length``, documents are put into S sequences of this length, in order; one that does not fit begins the next
    sequence. ``c``, ``c_position_ids`` and ``c_document_ids`` are [S, length(, d)], padded with 0, 0 and -1.
    ``c_cu_seqlens`` are bounds in the S * length values of all sequences; the padding of a sequence is a document of
    its own, and rows without values are left out.

    Other columns are those of `Collate`.

    Args:
        collate: the columns.
        length: values of each sequence; None: one sequence of all values.
        long: what happens to a document that is longer than ``length``. error: ``ConfigError``. cut: its first values
            are kept.
    """

    collate: Collate
    length: int | None = None
    long: Literal["error", "cut"] = "error"

    def __post_init__(self) -> None:
        if self.length is not None and self.length < 1:
            raise ConfigError("length", f"found {self.length}", "at least 1")
        if self.long not in ("error", "cut"):
            raise ConfigError("long", f"found {self.long!r}", "one of: error, cut")

    def __call__(self, batch: Batch) -> dict[str, Any]:
        return self.collate.with_ragged(batch, self.pack)

    def pack(self, name: str, ragged: Ragged, fill: int = 0) -> dict[str, Any]:
        """Returns the tensors of one column of tokens, token ids or times.

        Args:
            name: the column.
            ragged: its values.
            fill: the values of padding.
        """
        if self.length is not None:
            longest = int(ragged.lengths.max(initial=0))
            if longest > self.length and self.long == "error":
                raise ConfigError(
                    "length", f"{self.length}, but a row of {name!r} has {longest} values", f"{longest}, or long='cut'"
                )
            ragged = ragged.cut(self.length)
        lengths = ragged.lengths
        documents = np.repeat(np.arange(ragged.rows, dtype=np.int32), lengths)
        positions = np.arange(len(ragged.values)) - np.repeat(ragged.offsets[:-1], lengths)
        values, bounds = ragged.values, ragged.offsets
        if self.length is not None:
            sequences = _sequences(ragged.offsets, self.length)
            is_value = mask(np.diff(ragged.offsets[sequences]), self.length)
            values = padded(values, is_value, fill)
            documents, positions = padded(documents, is_value, -1), padded(positions, is_value)
            bounds = _bounds(ragged.offsets, sequences, self.length)
        return {
            name: tensor(values),
            f"{name}_cu_seqlens": tensor(bounds.astype(np.int32)),
            f"{name}_max_seqlen": int(np.diff(bounds).max(initial=0)),
            f"{name}_position_ids": tensor(positions),
            f"{name}_document_ids": tensor(documents),
        }


def _sequences(offsets: np.ndarray, length: int) -> np.ndarray:
    """Returns [S + 1]: the first document of each sequence, then the number of documents."""
    found, rows = [0], len(offsets) - 1
    while found[-1] < rows:
        end = int(np.searchsorted(offsets, offsets[found[-1]] + length, side="right")) - 1
        found.append(end)
    return np.array(found)


def _bounds(offsets: np.ndarray, sequences: np.ndarray, length: int) -> np.ndarray:
    """Returns the first value of each document and of each padding, then the number of values with padding."""
    count = len(sequences) - 1
    sequence = np.repeat(np.arange(count), np.diff(sequences))
    starts = sequence * length + offsets[:-1] - offsets[sequences[:-1]][sequence]
    ends = np.arange(count) * length + np.diff(offsets[sequences])
    return np.unique(np.concatenate([starts[np.diff(offsets) > 0], ends, np.arange(count + 1) * length]))
