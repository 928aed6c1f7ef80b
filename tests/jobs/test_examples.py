"""The examples learn something, and the distributed one survives kills without losing or repeating a batch."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from pipeline.core.errors import ConfigError
from tests.dataset.loading import written
from tests.support import ROOT

BATCH = 8
"""Rows of a batch of the distributed example."""
CLASSES = ("circles", "squares", "stars")


def example(name: str, path: str | Path, *args: str) -> tuple[float, float, float, float]:
    """Runs an example in a process of its own. Returns its first and last loss, its figure, and that by chance."""
    done = subprocess.run(
        [sys.executable, "-m", f"jobs.examples.{name}", "--dataset", str(path), *args],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    losses = re.search(r"^loss: ([\d.]+) at the beginning, ([\d.]+) at the end of \d+ steps$", done.stdout, re.M)
    figure = re.search(r"^[\w@]+: ([\d.]+), by chance ([\d.]+) \(\d+ .*\)$", done.stdout, re.M)
    assert losses, done.stdout
    assert figure, done.stdout
    return float(losses[1]), float(losses[2]), float(figure[1]), float(figure[2])


# -- a dataset that is written by hand -------------------------------------------------------------


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dataset whose embeddings of texts are near the center of the class of their row."""
    rng = np.random.default_rng(0)
    centers = 2 * rng.standard_normal((3, written.D))
    rows = []
    for i in range(240):
        row = written.row(1) | {"number": i, "sample_id": f"{CLASSES[i % 3]}/{i}"}
        rows.append(row | {"photo_embedding": (centers[i % 3] + 0.5 * rng.standard_normal(written.D)).tolist()})
    return written.write(tmp_path_factory.mktemp("classes"), rows)


@pytest.mark.slow
def test_the_probe_reads_what_is_there(classes: str) -> None:
    first, last, accuracy, chance = example("linear_probe", classes, "--column", "photo_embedding", "--steps", "80")
    assert last < first / 3
    assert accuracy > 0.95
    assert 0.2 < chance < 0.5


@pytest.mark.slow
def test_the_probe_does_not_read_what_is_not_there(classes: str) -> None:
    """With classes that have nothing to do with the embeddings it stays at chance: held-out rows are not trained on."""
    label = ["--label", "([0-4]|[5-9])$"]
    _, _, accuracy, chance = example("linear_probe", classes, "--column", "photo_embedding", "--steps", "80", *label)
    assert accuracy < chance + 0.15


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("contrastive", [], "contrastive: --dataset: no feature of text stores embedding; of: photo (image"),
        ("linear_probe", ["--column", "photo_embedding", "--label", "x(y)"], "finds 0 classes"),
    ],
)
def test_errors_are_one_line(classes: str, name: str, args: list[str], message: str) -> None:
    command = [sys.executable, "-m", f"jobs.examples.{name}", "--dataset", classes, *args]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr


def test_fewer_rows_than_a_batch() -> None:
    from jobs.examples import _common

    assert list(_common.take([1, 2, 3], 7)) == [1, 2, 3, 1, 2, 3, 1]
    assert list(_common.take([1, 2], 0)) == []
    with pytest.raises(ConfigError, match="fewer rows to train on than a batch"):
        list(_common.take([], 3))


# -- the demo's dataset ----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def first(first_dataset: Path) -> Path:
    """The dataset of the README's first config, which examples only read."""
    return first_dataset


@pytest.mark.slow
def test_contrastive(first: Path) -> None:
    before, after, recall, chance = example("contrastive", first)
    assert after < 0.85 * before
    assert recall > 1.5 * chance


@pytest.mark.slow
def test_masked_token(first: Path) -> None:
    before, after, accuracy, chance = example("masked_token", first)
    assert after < 0.7 * before
    assert accuracy > 2 * chance


@pytest.mark.slow
def test_masked_patch(first: Path) -> None:
    before, after, error, of_mean = example("masked_patch", first)
    assert after < 0.5 * before
    assert error < 0.5 * of_mean


@pytest.mark.slow
def test_linear_probe(first: Path) -> None:
    before, after, accuracy, chance = example("linear_probe", first)
    assert after < 0.5 * before
    assert accuracy > chance + 0.3


# -- kills -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Read:
    """A batch that a rank was given."""

    epoch: int
    rows: tuple[int, ...]
    ids: tuple[str, ...]

    @property
    def place(self) -> tuple[int, int]:
        return self.epoch, self.rows[0]


class Job:
    """One start of the distributed example.

    Args:
        path: the dataset.
        folder: of the checkpoint, and of a log for each start.
        ranks: number of ranks.
        pause_s: after each step.
    """

    def __init__(self, path: Path, folder: Path, ranks: int, pause_s: float = 0.0) -> None:
        self.log = folder / f"log-{len(list(folder.glob('log-*')))}"
        self.log.mkdir(parents=True)
        command = [sys.executable, "-m", "jobs.examples.distributed", "--dataset", str(path), "--epochs", "3"]
        command += ["--checkpoint", str(folder / "checkpoint.pt"), "--batch-log", str(self.log), "--ranks", str(ranks)]
        command += ["--every", "4", "--pause-s", str(pause_s)]
        self.output = (folder / f"{self.log.name}.txt").open("w+")
        environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=self.output, stderr=subprocess.STDOUT, env=environment
        )

    def batches(self) -> list[Read]:
        """Returns the batches of all ranks so far, each rank's in its order. A line that a kill cut is left out."""
        found = []
        for file in sorted(self.log.iterdir()):
            lines = [line for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
            values = [json.loads(line) for line in lines]
            reads = [Read(value["epoch"], tuple(value["rows"]), tuple(value["ids"])) for value in values]
            assert [one.place for one in reads] == sorted(one.place for one in reads)
            found += reads
        return found

    def wait(self, batches: int = 0) -> None:
        """Waits for so many batches of all ranks; 0: for the end."""
        end_s = time.monotonic() + 200
        while len(self.batches()) < batches if batches else self.process.poll() is None:
            assert time.monotonic() < end_s, self.text()
            assert not batches or self.process.poll() is None, self.text()
            time.sleep(0.05)

    def kill(self, rank: int | None) -> None:
        """Kills one rank, after which torchrun ends the others; or all processes, torchrun too, if ``rank`` is None."""
        if rank is None:
            every = [*psutil.Process(self.process.pid).children(recursive=True), self.process]
        else:
            (file,) = self.log.glob(f"{rank}-*.jsonl")
            every = [psutil.Process(int(file.stem.partition("-")[2]))]
        for one in every:
            one.send_signal(signal.SIGKILL)
        self.process.wait(120)
        assert self.process.returncode != 0, "it was killed too late"

    def text(self) -> str:
        self.output.seek(0)
        return self.output.read()


def at_checkpoint(folder: Path) -> tuple[int, int]:
    """Returns the epoch and the first row of the next batch."""
    path = folder / "checkpoint.pt"
    state = torch.load(path, weights_only=True)["reader"] if path.exists() else {"epoch": 0, "position": 0}
    return state["epoch"], state["position"] * BATCH


@pytest.fixture(scope="module")
def undisturbed(first: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Read]:
    """The batches of three epochs that one rank reads."""
    job = Job(first, tmp_path_factory.mktemp("undisturbed"), ranks=1)
    job.wait()
    assert job.process.returncode == 0, job.text()
    return job.batches()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "kills",
    [
        [(2, 1, 15)],
        [(2, None, 45), (3, None, 10)],
        [(2, 0, 6), (3, 2, 40), (1, None, 12)],
    ],
    ids=["a rank", "all ranks twice", "rank 0, a rank, all"],
)
def test_kills_neither_lose_nor_repeat_a_batch(
    first: Path, undisturbed: list[Read], tmp_path: Path, kills: list[tuple[int, int | None, int]]
) -> None:
    """Each kill: the number of ranks, the one that is killed, and after how many batches. Then three ranks go on."""
    kept: list[Read] = []
    seen: list[Read] = []
    begin = (0, 0)
    for ranks, killed, batches in [*kills, (3, -1, 0)]:
        job = Job(first, tmp_path, ranks, pause_s=0.0 if killed == -1 else 0.1)
        job.wait(batches)
        if killed != -1:
            job.kill(killed)
        end = at_checkpoint(tmp_path)
        assert (job.process.returncode == 0) == (killed == -1), job.text()
        read = job.batches()
        assert min(one.place for one in read) == begin, "it begins at the batch after the checkpoint"
        kept += [one for one in read if one.place < end]
        seen += read
        begin = end
    assert begin == (3, 0)
    assert "accuracy: " in job.text()

    ids = {(one.epoch, row): id for one in undisturbed for row, id in zip(one.rows, one.ids, strict=True)}
    for one in seen:  # also those that were read again, after the checkpoint
        assert [ids[one.epoch, row] for row in one.rows] == list(one.ids)
    rows = 1 + max(row for _, row in ids)
    for epoch in range(3):
        expected = [one.rows for one in undisturbed if one.epoch == epoch]
        found = sorted(one.rows for one in kept if one.epoch == epoch)
        full = [one for one in found if len(one) == BATCH]
        assert full == expected[: len(full)], "the same batches, each once"
        last_round = [row for one in found if len(one) < BATCH for row in one]
        assert len(expected) - len(full) <= 3, "only the last round has other batches"
        assert sorted({*last_round}) == list(range(len(full) * BATCH, rows))
        assert len(last_round) <= max(3, rows - len(full) * BATCH), "repeated only if there are fewer rows than ranks"
