"""JaggedCollate: tokens, token ids and times as nested tensors of torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.dataset.collate.column import tensor

if TYPE_CHECKING:
    from pipeline.dataset.collate.padded import Batch, Collate
    from pipeline.dataset.collate.ragged import Ragged


@dataclass(frozen=True)
class JaggedCollate:
    """Converts many rows to one batch in which tokens, token ids and times are nested tensors. Picklable.

    For such a column ``c`` the batch has ``c`` [B, j(, d)], a nested tensor of the layout ``torch.jagged``, and
    ``c_valid`` [B] bool, False for nulls, which have no values. Other columns are those of `Collate`.

    Args:
        collate: the columns.
    """

    collate: Collate

    def __call__(self, batch: Batch) -> dict[str, Any]:
        import torch

        def nested(name: str, ragged: Ragged) -> dict[str, Any]:
            return {name: torch.nested.nested_tensor_from_jagged(tensor(ragged.values), tensor(ragged.offsets))}

        return self.collate.with_ragged(batch, nested)
