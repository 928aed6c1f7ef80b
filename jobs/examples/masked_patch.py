"""A small transformer predicts masked patches from those that are visible, as masked autoencoders do.

    python -m jobs.examples.masked_patch --dataset .demo/first

Error: the squared error over masked patches of held-out rows, as a share of that of the mean of the training rows at
the same place of the grid. So the figure by chance is 1, and smaller is better.
"""

from __future__ import annotations

from typing import Any

import torch

from jobs.examples._common import Losses, arguments, column_of, prepared, report, run, split, take
from pipeline.core.errors import ConfigError
from pipeline.training import MimCollate

WIDTH, LAYERS, BATCH, RATIO = 64, 2, 32, 0.5


class Model(torch.nn.Module):
    """A transformer over the patches of one grid, of which masked ones are replaced by a learned vector."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        super().__init__()
        patches, width = mean.shape
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.input, self.output = torch.nn.Linear(width, WIDTH), torch.nn.Linear(WIDTH, width)
        self.mask = torch.nn.Parameter(torch.zeros(WIDTH))
        self.positions = torch.nn.Parameter(torch.randn(patches, WIDTH) * 0.02)
        layer = torch.nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, 0.1, batch_first=True, norm_first=True)
        self.layers = torch.nn.TransformerEncoder(layer, LAYERS, torch.nn.LayerNorm(WIDTH), enable_nested_tensor=False)

    def errors(self, patches: torch.Tensor, masked: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the squared errors [masked patches, d] of the prediction, and those of the mean."""
        target = (patches.float() - self.mean) / self.std
        hidden = torch.where(masked[:, :, None], self.mask, self.input(target)) + self.positions
        predicted = self.output(self.layers(hidden))
        return (predicted - target)[masked] ** 2, target[masked] ** 2


def main() -> None:
    given, data = prepared(arguments(__doc__, steps=400))
    name = column_of(data, "tokens", "image", "video")
    feature = name.removesuffix("_tokens")
    columns = [name, f"{feature}_grid"]
    train, held_out = split(data, columns)
    collate = MimCollate(data.collate, feature, RATIO, seed=given.seed)

    def read(kept: Any, batch_size: int = BATCH, **options: Any) -> Any:
        return data.to_torch(columns, None, None, batch_size, seed=given.seed, filter=kept, collate=collate, **options)

    known = next(iter(read(train, batch_size=4096)))
    if not (known[f"{feature}_grid"] == known[f"{feature}_grid"][0]).all():
        raise ConfigError("--dataset", f"the rows of {name} have different grids", "rows of one grid")
    values = known[name].float()
    model = Model(values.mean(dim=0), values.std(dim=0) + 1e-3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    losses = Losses()
    for batch in take(read(train, shuffle=True, tail="drop"), given.steps):
        losses.step(model.errors(batch[name], batch["masked"])[0].mean(), optimizer)
    model.eval()
    with torch.no_grad():
        errors = [model.errors(batch[name], batch["masked"]) for batch in read(held_out)]
    own, of_mean = (torch.cat([pair[i] for pair in errors]) for i in range(2))
    of = f"{len(own)} masked patches of held-out rows, {name}; by chance: the mean of the place; smaller is better"
    report(losses, "error", (own.mean() / of_mean.mean()).item(), 1.0, of)


if __name__ == "__main__":
    run(main)
