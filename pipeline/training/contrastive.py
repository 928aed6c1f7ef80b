"""ContrastiveCollate: rows that have all of several modalities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.core.errors import ConfigError
from pipeline.dataset.collate import Collate
from pipeline.dataset.collate.padded import Batch
from pipeline.dataset.loading.place import id_hashes
from pipeline.training._rows import KeptRows, Values, merged


@dataclass(frozen=True)
class ContrastiveCollate:
    """Converts a batch to tensors of the rows that have several modalities, for contrastive methods. Picklable.

    The values of one row are a positive pair, as in CLIP (Radford et al. 2021, https://arxiv.org/abs/2103.00020); those
    of different rows are negatives. The batch has the tensors of `Collate` for R rows, those in which no column of
    ``columns`` is null or empty, and:

    - ``left_out``: [] int64, the number of the other rows. With ``filter`` the reader leaves them out before it makes
      batches, so that all batches are full: ``pc.field("a").is_valid() & pc.field("b").is_valid()``.
    - ``group``, if ``same`` is given: [R] int64, a hash of its value, the same on all ranks. Rows of one group, such as
      the windows of one video, are no negatives of each other: the loss masks
      ``(group[:, None] == group[None, :]) & ~torch.eye(R, dtype=torch.bool)``.

    R may be 0: then the tensors have no rows.

    Args:
        collate: the columns: `Dataset.collate`.
        columns: two or more, such as ``("picture_embedding", "caption_embedding")``.
        same: a column of texts or integers that is equal in rows of one sample, such as ``sample_id``. Rows in which it
            is null are left out.
        least: of ``columns``, how many a row must have; None: all. With fewer, the missing ones are zeros, and False in
            the tensor ``c_valid`` of the column ``c``.
    """

    collate: Collate
    columns: tuple[str, ...]
    same: str | None = None
    least: int | None = None

    def __post_init__(self) -> None:
        if len({*self.columns}) < max(2, len(self.columns)):
            raise ConfigError("columns", f"found {self.columns}", "two or more different columns")
        for name in (*self.columns, *([self.same] if self.same else [])):
            if name not in self.collate.columns:
                raise ConfigError("columns", f"there is no column {name!r}", f"of: {', '.join(self.collate.columns)}")
        if self.least is not None and not 2 <= self.least <= len(self.columns):
            raise ConfigError("least", f"found {self.least}", f"2 to {len(self.columns)}")

    def __call__(self, batch: Batch) -> dict[str, Any]:
        rows = KeptRows.of(self.collate, batch, self.columns, self.least)
        if self.same is None:
            return rows.tensors()
        rows = rows.with_values(self.same)
        return merged(rows.tensors(), {"group": id_hashes(_column(rows.columns[self.same]))})


def _column(values: Values) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values)
