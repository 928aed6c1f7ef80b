"""A small transformer predicts masked token ids, as BERT does.

    python -m jobs.examples.masked_token --dataset .demo/first

Accuracy: for how many masked tokens of held-out rows it predicts the right id. By chance: always the most frequent id
of the training rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from jobs.examples._common import Losses, arguments, column_of, prepared, report, run, split, take
from pipeline.training import MlmCollate

WIDTH, LAYERS, BATCH, LONGEST = 64, 2, 32, 512


class Model(torch.nn.Module):
    """A transformer whose output layer has the weights of its input layer."""

    def __init__(self, ids: int) -> None:
        super().__init__()
        self.tokens = torch.nn.Embedding(ids, WIDTH)
        self.positions = torch.nn.Embedding(LONGEST, WIDTH)
        layer = torch.nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, 0.1, batch_first=True, norm_first=True)
        self.layers = torch.nn.TransformerEncoder(layer, LAYERS, torch.nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        torch.nn.init.normal_(self.tokens.weight, std=0.05)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Returns logits [R, N, ids]."""
        hidden = self.tokens(input_ids) + self.positions(torch.arange(input_ids.shape[1]))
        hidden = self.layers(hidden, src_key_padding_mask=~attention_mask)
        logits: torch.Tensor = hidden @ self.tokens.weight.T
        return logits


def main() -> None:
    given, data = prepared(arguments(__doc__, steps=250))
    name = column_of(data, "token_ids", "text")
    train, held_out = split(data, [name])
    known = data.to_arrow([name], train)[name].combine_chunks().flatten().to_numpy()
    ids = 1 + int(data.to_arrow([name])[name].combine_chunks().flatten().to_numpy().max())
    # stored ids have no special tokens, and no mask token, for which the model has one id more
    collate = MlmCollate(data.collate, name, mask_id=ids, vocab_size=ids, seed=given.seed)

    def read(kept: Any, **options: Any) -> Any:
        return data.to_torch([name], batch_size=BATCH, seed=given.seed, filter=kept, collate=collate, **options)

    model = Model(ids + 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = Losses()
    for batch in take(read(train, shuffle=True, tail="drop"), given.steps):
        logits = model(batch["input_ids"], batch["attention_mask"])
        losses.step(functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten()), optimizer)
    model.eval()
    guesses, labels = [], []
    with torch.no_grad():
        for batch in read(held_out):
            is_masked = batch["labels"] >= 0
            guesses.append(model(batch["input_ids"], batch["attention_mask"])[is_masked].argmax(dim=1))
            labels.append(batch["labels"][is_masked])
    right = torch.cat(labels)
    frequent = int(np.bincount(known).argmax())
    report(
        losses,
        "accuracy",
        (torch.cat(guesses) == right).float().mean().item(),
        (right == frequent).float().mean().item(),
        f"{len(right)} masked tokens of held-out rows, {name}; by chance: the most frequent id",
    )


if __name__ == "__main__":
    run(main)
