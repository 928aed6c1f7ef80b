"""A linear probe: what can be read from stored embeddings by a linear classifier.

    python -m jobs.examples.linear_probe --dataset .demo/first

The class of a row is the folder of its sample (``pictures``, ``notes``...), or what ``--label`` finds in ``sample_id``:
a regular expression with a group. Accuracy on held-out rows; by chance: always the most frequent class of the training
rows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch
from torch.nn import functional

from jobs.examples._common import Losses, arguments, column_of, prepared, report, run, split, take
from pipeline.core.errors import ConfigError
from pipeline.dataset.collate import Collate

BATCH = 32
FOLDER = "^(.*)/"


@dataclass(frozen=True)
class LabelledCollate:
    """Adds ``label`` [B] int64 to the tensors of a batch: the number of the class of each row, -1 without one."""

    collate: Collate
    pattern: str
    classes: tuple[str, ...]

    def __call__(self, batch: pa.RecordBatch | pa.Table) -> dict[str, Any]:
        found = [label_of(self.pattern, one) for one in batch["sample_id"].to_pylist()]
        numbers = [self.classes.index(one) if one in self.classes else -1 for one in found]
        return {**self.collate(batch), "label": torch.tensor(numbers)}


def label_of(pattern: str, sample_id: str) -> str | None:
    """Returns the class of a sample; None: it has none."""
    match = re.search(pattern, sample_id)
    return match[1] if match else None


def main() -> None:
    parser = arguments(__doc__, steps=300)
    parser.add_argument("--label", default=FOLDER, help="where a sample_id has the class (default: %(default)s)")
    parser.add_argument("--column", help="an embedding (default: that of the texts)")
    given, data = prepared(parser)
    name, pattern = given.column or column_of(data, "embedding", "text"), given.label
    train, held_out = split(data, [name])
    found = {label_of(pattern, one) for one in data.to_arrow(["sample_id"], train)["sample_id"].to_pylist()} - {None}
    if len(found) < 2:
        raise ConfigError("--label", f"{pattern!r} finds {len(found)} classes", "at least 2")
    collate = LabelledCollate(data.collate, pattern, tuple(sorted(one for one in found if one)))

    def read(kept: Any, batch_size: int = BATCH, **options: Any) -> Any:
        columns = ["sample_id", name]
        return data.to_torch(columns, None, None, batch_size, seed=given.seed, filter=kept, collate=collate, **options)

    known, test = (next(iter(read(kept, batch_size=4096))) for kept in (train, held_out))
    width = known[name].shape[1]
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(width, affine=False), torch.nn.Linear(width, len(collate.classes)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    losses = Losses()
    for batch in take(read(train, shuffle=True, tail="drop"), given.steps):
        logits = model(batch[name].float())
        losses.step(functional.cross_entropy(logits, batch["label"], ignore_index=-1), optimizer)
    model.eval()
    is_labelled = test["label"] >= 0
    with torch.no_grad():
        guesses = model(test[name].float()).argmax(dim=1)
    frequent = known["label"][known["label"] >= 0].bincount().argmax()
    accuracy, chance = (
        (guess == test["label"])[is_labelled].float().mean().item()
        for guess in (guesses, frequent.expand(len(guesses)))
    )
    of = f"{int(is_labelled.sum())} held-out rows, {name}, {len(collate.classes)} classes"
    report(losses, "accuracy", accuracy, chance, of)


if __name__ == "__main__":
    run(main)
