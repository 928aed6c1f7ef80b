"""Training on several ranks, which can be killed at any moment and goes on where its last checkpoint was.

    python -m jobs.examples.distributed --dataset .demo/first --checkpoint .demo/checkpoint.pt --ranks 2

Started again, also with another number of ranks, it loads the checkpoint, and reads on from the batch after the last
one that the checkpoint counts: the sequence of batches over all runs is that of a run that was not interrupted, up to
the last round of an epoch, whose rows are divided among the ranks. The task is that of `linear_probe`.

The command starts torchrun. For several machines, start this module with torchrun on each.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import torch
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from jobs.examples._common import Losses, arguments, column_of, prepared, report, run, split
from jobs.examples.linear_probe import FOLDER, LabelledCollate, accuracies, classes_of
from pipeline.dataset import Dataset
from pipeline.training import Place

BATCH = 8


@dataclass(frozen=True)
class NumberedCollate:
    """Adds ``epoch`` and ``rows`` [B] int64, the numbers of the rows in the order of the epoch, for the log."""

    wants_place: ClassVar[bool] = True
    collate: LabelledCollate

    def __call__(self, batch: pa.RecordBatch, place: Place) -> dict[str, Any]:
        return {**self.collate(batch), "epoch": place.epoch, "rows": torch.from_numpy(place.rows)}


@dataclass
class Training:
    """The model, its optimizer and the losses of all steps: what a checkpoint holds beside the reader's state."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    losses: Losses = dataclasses.field(default_factory=Losses)

    def save(self, path: Path, reader_state: dict[str, Any]) -> None:
        """Writes a checkpoint. A kill leaves the former one or this one, never a part."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "losses": self.losses.values,
            "reader": reader_state,
        }
        unfinished = path.with_name(f"{path.name}.tmp")
        with unfinished.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)

    def load(self, path: Path) -> dict[str, Any]:
        """Loads a checkpoint. Returns the state of the reader."""
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.losses.values = state["losses"]
        found: dict[str, Any] = state["reader"]
        return found


class BatchLog:
    """A line of JSON for each batch of this process: its epoch, the numbers of its rows, and their samples.

    Args:
        folder: of a file for each process; None: nothing is written.
        rank: of this process.
    """

    def __init__(self, folder: str | None, rank: int) -> None:
        self.file = (Path(folder) / f"{rank}-{os.getpid()}.jsonl").open("a") if folder else None

    def add(self, batch: dict[str, Any]) -> None:
        if self.file:
            line = {"epoch": batch["epoch"], "rows": batch["rows"].tolist(), "ids": batch["sample_id"]}
            self.file.write(json.dumps(line) + "\n")
            self.file.flush()


def train(given: argparse.Namespace, data: Dataset) -> None:
    """Trains on this rank."""
    name = column_of(data, "embedding", "text")
    kept, held_out = split(data, [name])
    labelled = LabelledCollate(data.collate, FOLDER, classes_of(data, name, FOLDER))
    reader: Any = data.to_torch(
        ["sample_id", name],
        batch_size=BATCH,
        shuffle=True,
        seed=given.seed,
        filter=kept,
        collate=NumberedCollate(labelled),
    )
    known, test = (labelled(data.to_arrow(["sample_id", name], rows)) for rows in (kept, held_out))
    width = test[name].shape[1]
    probe = torch.nn.Sequential(
        torch.nn.LayerNorm(width, elementwise_affine=False), torch.nn.Linear(width, len(labelled.classes))
    )
    training = Training(probe, torch.optim.AdamW(probe.parameters(), lr=0.01))
    path, rank = Path(given.checkpoint), torch.distributed.get_rank()
    loader = reader.loader(given.workers)
    if path.exists():
        loader.load_state_dict(training.load(path))
    model, log = DistributedDataParallel(probe), BatchLog(given.batch_log, rank)
    if rank == 0:
        ranks, steps = torch.distributed.get_world_size(), len(training.losses.values)
        print(f"{ranks} ranks begin at epoch {loader.epoch}, after {steps} steps", flush=True)
    while loader.epoch < given.epochs:
        for batch in loader:
            log.add(batch)
            loss = functional.cross_entropy(model(batch[name].float()), batch["label"], ignore_index=-1)
            training.losses.step(loss, training.optimizer)
            if rank == 0 and len(training.losses.values) % given.every == 0:
                training.save(path, loader.state_dict())
            time.sleep(given.pause_s)
    if rank == 0:
        training.save(path, loader.state_dict())
        with torch.no_grad():
            accuracy, chance, rows = accuracies(probe(test[name].float()), test["label"], known["label"])
        report(training.losses, "accuracy", accuracy, chance, f"{rows} held-out rows, {name}")


def main() -> None:
    parser = arguments(__doc__, steps=None)
    parser.add_argument("--checkpoint", required=True, help="a file; loaded if it exists")
    parser.add_argument("--ranks", type=int, default=2, help="processes of torchrun (default: %(default)s)")
    parser.add_argument(
        "--workers", type=int, default=1, help="processes that read, of each rank (default: %(default)s)"
    )
    parser.add_argument("--epochs", type=int, default=6, help="(default: %(default)s)")
    parser.add_argument("--every", type=int, default=5, help="steps between checkpoints (default: %(default)s)")
    parser.add_argument("--batch-log", help="a folder for a list of the batches of each rank")
    parser.add_argument("--pause-s", type=float, default=0.0, help="seconds to wait after each step")
    if "RANK" not in os.environ:
        ranks = parser.parse_args().ranks
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        os.execv(sys.executable, [*torchrun, "-m", "jobs.examples.distributed", *sys.argv[1:]])
    given, data = prepared(parser)
    torch.distributed.init_process_group("gloo")
    try:
        train(given, data)
    finally:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    run(main)
