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
import pyarrow.compute as pc
import torch
from torch.nn import functional

from jobs.examples._common import Losses, arguments, column_of, prepared, report, run, split, take
from pipeline.core.errors import ConfigError
from pipeline.dataset import Dataset
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


def classes_of(data: Dataset, name: str, pattern: str) -> tuple[str, ...]:
    """Returns the classes of the rows that have a column. Raises ``ConfigError`` if there are fewer than two."""
    ids = data.to_arrow(["sample_id"], pc.field(name).is_valid())["sample_id"].to_pylist()
    found = sorted({label for one in ids if (label := label_of(pattern, one)) is not None})
    if len(found) < 2:
        raise ConfigError("--label", f"{pattern!r} finds {len(found)} classes", "at least 2")
    return tuple(found)


def accuracies(logits: torch.Tensor, labels: torch.Tensor, known: torch.Tensor) -> tuple[float, float, int]:
    """Returns the accuracy, that of the most frequent one of the ``known`` labels, and the number of labelled rows.

    Args:
        logits: [B, classes].
        labels: [B] int64, -1 for rows without a class.
        known: the labels of the training rows.
    """
    is_labelled = labels >= 0
    labels, guesses = labels[is_labelled], logits[is_labelled].argmax(dim=1)
    frequent = known[known >= 0].bincount().argmax()
    return (guesses == labels).float().mean().item(), (labels == frequent).float().mean().item(), len(labels)


def main() -> None:
    parser = arguments(__doc__, steps=300)
    parser.add_argument("--label", default=FOLDER, help="where a sample_id has the class (default: %(default)s)")
    parser.add_argument("--column", help="an embedding (default: that of the texts)")
    given, data = prepared(parser)
    name, pattern = given.column or column_of(data, "embedding", "text"), given.label
    train, held_out = split(data, [name])
    collate = LabelledCollate(data.collate, pattern, classes_of(data, name, pattern))

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
    with torch.no_grad():
        accuracy, chance, rows = accuracies(model(test[name].float()), test["label"], known["label"])
    report(losses, "accuracy", accuracy, chance, f"{rows} held-out rows, {name}, {len(collate.classes)} classes")


if __name__ == "__main__":
    run(main)
