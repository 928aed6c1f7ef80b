"""What the examples share: arguments, columns by modality, held-out rows, what they print. It imports torch."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import torch

from pipeline import dataset
from pipeline.core.errors import ConfigError
from pipeline.core.schema import column
from pipeline.core.terminal import escaped_streams
from pipeline.dataset import Dataset
from pipeline.dataset.loading.place import id_hashes

HELD_OUT_PERCENT = 30


def arguments(description: str | None, steps: int | None) -> argparse.ArgumentParser:
    """Returns a parser of the arguments that all examples have.

    Args:
        description: the docstring of the example.
        steps: the default number of steps; None: there is no such argument.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="a dataset, such as .demo/first")
    if steps is not None:
        parser.add_argument("--steps", type=int, default=steps, help="steps of training (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the order of rows, masks and weights")
    return parser


def prepared(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, Dataset]:
    """Returns the arguments and the dataset."""
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    torch.set_num_threads(1)  # models this small are slower with more
    return given, dataset.open(given.dataset)


def run(main: Callable[[], None]) -> None:
    """Calls an example, with texts of a dataset escaped. An error of the user is one line, and exit code 2."""
    with escaped_streams():
        try:
            main()
        except ConfigError as error:
            print(f"{Path(sys.argv[0]).stem}: {error}", file=sys.stderr)
            raise SystemExit(2) from None


def column_of(data: Dataset, part: str, *modalities: str) -> str:
    """Returns the column of the first feature of one of these modalities that stores ``part``.

    Args:
        data: the dataset.
        part: ``embedding``, ``tokens`` or ``token_ids``.
        modalities: those that fit, the preferred one first.

    Raises:
        ConfigError: there is none.
    """
    for modality in modalities:
        for feature in data.features.values():
            if feature.modality == modality and column(feature.name, part) in data.schema.names:
                return column(feature.name, part)
    found = [f"{one.name} ({one.modality}: {', '.join(one.emit)})" for one in data.features.values()]
    raise ConfigError("--dataset", f"no feature of {' or '.join(modalities)} stores {part}", f"of: {'; '.join(found)}")


def split(data: Dataset, columns: Sequence[str]) -> tuple[pc.Expression, pc.Expression]:
    """Returns two filters: of the rows to train on, and of held-out rows. Both keep rows in which no column is null.

    A large corpus would rather store the side of each sample in a column of its manifest.
    """
    ids = sorted(set(data.to_arrow(["sample_id"])["sample_id"].to_pylist()))
    is_held_out = (id_hashes(ids) % 100 < HELD_OUT_PERCENT).tolist()
    held_out = [one for one, is_one in zip(ids, is_held_out, strict=True) if is_one]
    present = pc.field(columns[0]).is_valid()
    for name in columns[1:]:
        present = present & pc.field(name).is_valid()
    return present & ~pc.field("sample_id").isin(held_out), present & pc.field("sample_id").isin(held_out)


def take(batches: Iterable[Any], steps: int) -> Iterator[Any]:
    """Yields ``steps`` batches of a reader, of as many epochs as that takes.

    Raises ``ConfigError`` if an epoch has none.
    """
    left = steps
    while left:
        before = left
        for batch in itertools.islice(batches, left):
            left -= 1
            yield batch
        if left == before:
            raise ConfigError("--dataset", "it has fewer rows to train on than a batch", "a larger dataset")


class Losses:
    """The losses of all steps."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def step(self, loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Makes one step of training."""
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # untyped in torch
        optimizer.step()
        self.values.append(loss.item())

    def __str__(self) -> str:
        few = max(1, min(10, len(self.values) // 4))
        first, last = (sum(part) / few for part in (self.values[:few], self.values[-few:]))
        return f"loss: {first:.3f} at the beginning, {last:.3f} at the end of {len(self.values)} steps"


def report(losses: Losses, name: str, value: float, chance: float, of: str) -> None:
    """Prints the losses, and a figure on held-out rows against chance.

    Args:
        losses: of the training.
        name: of the figure.
        value: of the figure.
        chance: the figure of what has learned nothing.
        of: what it is measured on, and what chance is.
    """
    print(losses)
    print(f"{name}: {value:.3f}, by chance {chance:.3f} ({of})")
