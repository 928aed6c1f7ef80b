"""Array helpers of the comparison: codes for strings, sets of (sample, window), and list columns."""

from __future__ import annotations

import numpy as np
import pyarrow as pa


class WindowSet:
    """A set of (sample code, window)."""

    def __init__(self, codes: np.ndarray, windows: np.ndarray) -> None:
        self.keys = np.unique(self.key(codes, windows))

    def __len__(self) -> int:
        return len(self.keys)

    @staticmethod
    def key(codes: np.ndarray, windows: np.ndarray) -> np.ndarray:
        """Returns one int64 for each pair: the code in the high half, the window in the low half."""
        return codes.astype(np.int64) << 32 | windows.astype(np.int64)

    def contains(self, codes: np.ndarray, windows: np.ndarray) -> np.ndarray:
        """Returns [n] bool: which pairs are in the set."""
        return np.isin(self.key(codes, windows), self.keys)

    def count(self, codes: int) -> np.ndarray:
        """Returns the number of windows of each code, [codes]."""
        return np.bincount(self.keys >> 32, minlength=codes)

    def lists(self, codes: np.ndarray) -> pa.Array:
        """Returns the windows of each of ``codes``, as ``list<int32>``."""
        first = np.searchsorted(self.keys, codes.astype(np.int64) << 32)
        last = np.searchsorted(self.keys, (codes.astype(np.int64) + 1) << 32)
        indices, offsets = concatenated_ranges(first, last)
        windows = (self.keys[indices] & 0xFFFFFFFF).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(windows))


def concatenated_ranges(first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the concatenation of the ranges ``[first[i], last[i])``, and the [n + 1] offsets of each range in it."""
    lengths = last - first
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return np.repeat(first - offsets[:-1], lengths) + np.arange(offsets[-1]), offsets


def struct_lists(columns: list[pa.Array], offsets: np.ndarray, kind: pa.DataType) -> pa.Array:
    """Returns an array of lists of structs, of type ``kind``.

    Args:
        columns: the fields of the structs of all lists.
        offsets: [n + 1] where each list begins.
        kind: a list type of structs.
    """
    values = pa.StructArray.from_arrays(columns, fields=list(kind.value_type))
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), values, type=kind)


def encode_strings(columns: list[pa.ChunkedArray]) -> tuple[np.ndarray, int]:
    """Returns a code for each value of all columns, one after the other, and the number of distinct codes.

    Equal strings have the same code. Codes count from 0, in order of appearance.
    """
    chunks = [chunk for column in columns for chunk in column.cast(pa.large_string()).chunks]
    found = pa.chunked_array(chunks, pa.large_string()).combine_chunks()
    encoded = (found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found).dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), len(encoded.dictionary)
