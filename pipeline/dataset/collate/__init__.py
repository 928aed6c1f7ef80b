"""Batches of a dataset as torch tensors. No module loops over the rows of a batch, unless they are Python values.

padded.py   Collate: each column as one tensor, padded to the longest row
packed.py   PackedCollate: the values of all rows one after the other, for attention over sequences of any lengths
jagged.py   JaggedCollate: nested tensors of torch
column.py   how the values of a column are converted
ragged.py   the values of a column of a batch, with the bounds of the rows

torch is imported when the first tensor is made.
"""

from __future__ import annotations

from pipeline.dataset.collate.column import Column
from pipeline.dataset.collate.padded import Collate

__all__ = ["Collate", "Column"]
"""`Dataset.collate` is a `Collate`; its methods return the others."""
