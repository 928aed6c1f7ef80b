"""Two modalities of a row into one space, as in CLIP: linear heads on stored embeddings.

    python -m jobs.examples.contrastive --dataset .demo/first

Recall@1: for how many held-out texts the picture of the same row is the nearest of all held-out pictures, and the other
way round.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from jobs.examples._common import Losses, arguments, column_of, prepared, report, run, split, take
from pipeline.training import ContrastiveCollate

SPACE, BATCH = 24, 32


class Heads(torch.nn.Module):
    """A linear head for each of two modalities, and the temperature."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.heads = torch.nn.ModuleList(
            torch.nn.Sequential(
                torch.nn.BatchNorm1d(width, affine=False), torch.nn.Dropout(0.1), torch.nn.Linear(width, SPACE)
            )
            for width in widths
        )
        self.log_scale = torch.nn.Parameter(torch.tensor(2.0))

    def forward(self, *embeddings: torch.Tensor) -> torch.Tensor:
        """Returns the similarities [R, R] of the rows of both modalities."""
        one, other = (
            functional.normalize(head(values.float()), dim=-1)
            for head, values in zip(self.heads, embeddings, strict=True)
        )
        return one @ other.T * self.log_scale.clamp(max=4.6).exp()


def loss_of(similarities: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
    """Returns the loss in both directions. Rows of one sample are no negatives of each other."""
    same = (group[:, None] == group[None, :]) & ~torch.eye(len(group), dtype=torch.bool)
    logits, target = similarities.masked_fill(same, float("-inf")), torch.arange(len(group))
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2


def recall(similarities: torch.Tensor) -> float:
    """Returns the recall@1 of both directions."""
    target = torch.arange(len(similarities))
    return sum((one.argmax(dim=1) == target).float().mean().item() for one in (similarities, similarities.T)) / 2


def main() -> None:
    given, data = prepared(arguments(__doc__, steps=400))
    pair = column_of(data, "embedding", "text"), column_of(data, "embedding", "image", "video", "audio")
    collate = ContrastiveCollate(data.collate, pair, same="sample_id")
    train, held_out = split(data, pair)

    def read(kept: Any, **options: Any) -> Any:
        return data.to_torch(["sample_id", *pair], seed=given.seed, filter=kept, collate=collate, **options)

    test = next(iter(read(held_out, batch_size=1024)))
    model = Heads([test[name].shape[1] for name in pair])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.3)
    losses = Losses()
    for batch in take(read(train, batch_size=BATCH, shuffle=True, tail="drop"), given.steps):
        losses.step(loss_of(model(*(batch[name] for name in pair)), batch["group"]), optimizer)
    model.eval()
    with torch.no_grad():
        value = recall(model(*(test[name] for name in pair)))
    rows = len(test["group"])
    report(losses, "recall@1", value, 1 / rows, f"{rows} held-out rows, {pair[0]} and {pair[1]}")


if __name__ == "__main__":
    run(main)
