"""Kill an extraction in five ways, run it again, and compare with an undisturbed run: `make chaos`, or

    python -m tests.measure.chaos --engine local --kills 30 --seed 0

Nothing is mocked. A driver, a worker (the process of a decoder, or of a task), an encoder (its process, or its actor),
a node's daemon or the fork server get SIGKILL after a random number of shards; a commit dies between two of its steps.
Prints a line for each kill and a sum, and ends with 1 if a row was lost, doubled, changed or blamed. ``--models``: with
two true encoders; without, the media's own values are the tokens, and a run is shorter. ``--twice``: the run that
continues is killed too.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml

from pipeline import dataset
from tests.support import ROOT

KINDS = {
    "local": ("driver", "worker", "encoder", "server", "commit"),
    "ray": ("driver", "worker", "actor", "node", "commit"),
}
"""What is killed, by engine."""
_TASKS, _ACTOR = ("ray::MapBatches(_Task)", "ray::Write"), "ray::MapWorker"
DECODER = "a process of the stages at work:"
_FORKED = ("tessera-probe", "tessera-decode", "tessera-encode", "tessera-forks")
"""A title that idle workers have not is that of one at work; a decoder's process has none of its own."""
_NOTHING = "nothing"
_WAIT_S = 400.0
_COMMIT_STEPS = 7
"""Changes of the file system from a first run's report on."""


@dataclass
class Verdict:
    """What a kill did to the dataset, once the run was continued."""

    kind: str
    lost: int = 0
    doubled: int = 0
    differing: int = 0
    blamed: int = 0
    runs: int = 1
    """After the kill, until one ended well; 0: the killed run ended well by itself."""
    first_s: float = 0.0
    """From the start of the killed run to the kill."""
    again_s: float = 0.0
    """Of the runs after it."""
    notes: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not (self.lost or self.doubled or self.differing or self.blamed)


def write_config(folder: Path, corpus: Path, features: dict[str, Any], name: str) -> Path:
    raw = {
        "source": {"kind": "files", "path": str(corpus)},
        "output": {"path": str(folder / name)},
        "window": {"length_s": 2},
        "features": features,
        "failures": {"max_fraction": 1.0},
        "compute": {"block_rows": 4},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def start(config: Path, *options: str) -> subprocess.Popen[bytes]:
    """A driver in a session of its own."""
    log = config.with_suffix(".log").open("ab")
    return subprocess.Popen(
        [sys.executable, "-m", "tests.measure.chaos_run", str(config), *options],
        cwd=ROOT,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


def run(config: Path, *options: str) -> int:
    process = start(config, *options)
    try:
        return process.wait(timeout=_WAIT_S)
    finally:
        sweep(process)


def sweep(process: subprocess.Popen[bytes]) -> None:
    """What is left of a run's session: Ray's daemons outlive a killed driver for a while."""
    for one in _session(process.pid):
        one.kill()


def _session(leader: int) -> Iterator[psutil.Process]:
    for one in psutil.process_iter():
        try:
            if os.getsid(one.pid) == leader:
                yield one
        except (psutil.Error, ProcessLookupError):
            continue


def shards_are_out(out: Path, process: subprocess.Popen[bytes], count: int = 1) -> bool:
    """Wait for the first shards of the run; False if it ended before."""
    deadline, before = time.monotonic() + _WAIT_S, set((out / "v1" / "data").glob("*.parquet"))
    while time.monotonic() < deadline and process.poll() is None:
        if len(set((out / "v1" / "data").glob("*.parquet")) - before) >= count:
            return True
        time.sleep(0.02)
    return False


def kill(kind: str, process: subprocess.Popen[bytes], dice: random.Random, above: int | None = None) -> str:
    """Kill a part of a running extraction; what was killed. ``above``: whose children Ray's processes are."""
    if kind == "driver":
        os.kill(process.pid, signal.SIGKILL)
        return "driver"
    wanted = {
        "worker": (*_TASKS, DECODER),
        "actor": (_ACTOR,),
        "encoder": (f"{DECODER} tessera-encode",),
        "server": (f"{DECODER} tessera-forks",),
    }
    for _ in range(200):
        found = []
        children = psutil.Process(above or process.pid).children(recursive=True)
        for one in children if kind != "node" else _session(process.pid):
            try:
                line = " ".join(one.cmdline())
                if one.name() in _FORKED:
                    at_work = one.status() == psutil.STATUS_RUNNING or kind in ("encoder", "server")
                    line = f"{DECODER} {one.name()}" if at_work else ""
            except (psutil.Error, AttributeError):
                continue
            if kind == "node" and "raylet/raylet" in line:
                found.append((one, "raylet of the second node"))
            elif kind != "node" and line.startswith(wanted[kind]):
                found.append((one, line.split(".")[0].strip()))
        if kind == "node":
            found = sorted(found, key=lambda pair: pair[0].create_time())[1:]  # the first is the driver's own
        if found:
            victim, name = dice.choice(found)
            victim.kill()
            return name
        if process.poll() is not None:
            return f"{_NOTHING}: the run was over"
        time.sleep(0.05)
    return f"{_NOTHING}: none was at work"


def rows_of(out: Path) -> dict[tuple[str, int], list[dict[str, Any]]]:
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in dataset.open(str(out)).to_arrow().to_pylist():
        found.setdefault((row["sample_id"], row["window"]), []).append(row)
    return found


def compare(kind: str, out: Path, expected: Path) -> Verdict:
    """Same ids, each once, values within 1e-5 (float16: one unit in the last place), no innocent row blamed."""
    verdict = Verdict(kind)
    ours, theirs = rows_of(out), rows_of(expected)
    verdict.lost = len(theirs.keys() - ours.keys())
    verdict.doubled = sum(len(rows) > 1 for rows in ours.values()) + len(ours.keys() - theirs.keys())
    for key in ours.keys() & theirs.keys():
        verdict.differing += not _same(ours[key][0], theirs[key][0])
    blamed = {_key(row) for row in dataset.open(str(out)).failures().to_pylist()}
    innocent = {_key(row) for row in dataset.open(str(expected)).failures().to_pylist()}
    verdict.blamed = len(blamed ^ innocent)
    return verdict


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["sample_id"], row["window"], row["feature"], row["kind"]


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    for name, value in other.items():
        if name == "run_id":
            continue
        if isinstance(value, list) and isinstance(one[name], list):
            a, b = np.asarray(one[name], np.float64), np.asarray(value, np.float64)
            if a.shape != b.shape or not np.allclose(a, b, rtol=1e-3 if "tokens" in name else 0, atol=1e-5):
                return False
        elif one[name] != value:
            return False
    return True


def attack(
    kind: str,
    folder: Path,
    corpus: Path,
    features: dict[str, Any],
    expected: Path,
    dice: random.Random,
    engine: str,
    twice: bool = False,
) -> Verdict:
    """One kill, and the runs that make good for it. ``twice``: the driver of the first of those is killed too."""
    name = f"{kind}-{dice.randrange(10**6)}"
    config, out = write_config(folder, corpus, features, name), folder / name
    by_engine = ["--engine", engine]
    options = {"node": ["--nodes", "2"], "commit": ["--die-at", str(dice.randrange(_COMMIT_STEPS))]}.get(kind, [])
    # the last two may come too late for a kill to meet anything
    wait_for = dice.randint(1, max(1, len(dataset.open(str(expected)).shards) - 2))
    started = started_again = time.monotonic()
    process = start(config, *by_engine, *options)
    killed = "at a step of the commit"
    if kind != "commit" and shards_are_out(out, process, wait_for):
        time.sleep(dice.random())
        killed = kill(kind, process, dice)
        started_again = time.monotonic()
    process.wait(timeout=_WAIT_S)
    code = process.returncode
    sweep(process)
    if kind == "commit" or code == 0:
        started_again = time.monotonic()
    if kind == "commit" and code == 0:
        killed = f"{_NOTHING}: the run was over"
    runs = 0
    if twice and code != 0:
        again = start(config, *by_engine)
        if shards_are_out(out, again):
            time.sleep(dice.random())
            killed += f", then {kill('driver', again, dice)}"
        code, runs = again.wait(timeout=_WAIT_S), 1
        sweep(again)
    while code != 0 and runs < 3:
        runs += 1
        code = run(config, *by_engine)
    verdict = compare(kind, out, expected)
    verdict.runs, verdict.first_s = runs, started_again - started
    verdict.again_s = time.monotonic() - started_again
    verdict.notes.append(killed)
    shutil.rmtree(out)
    return verdict


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=[*KINDS], default="local")
    parser.add_argument("--kinds", help="as in KINDS, with commas between them; all if it is left out")
    parser.add_argument("--models", action="store_true")
    parser.add_argument("--twice", action="store_true", help="kill the run that continues, too")
    asked = parser.parse_args()
    dice = random.Random(asked.seed)
    kinds = asked.kinds.split(",") if asked.kinds else KINDS[asked.engine]
    data = Path(os.environ.get("TESSERA_DATA", ROOT.parent / "shared" / "data"))
    with tempfile.TemporaryDirectory(prefix="tessera-chaos-") as name:
        folder = Path(name)
        corpus, features = (
            real_corpus(folder / "corpus", data),
            real_features(ROOT / ".demo" / "models" if asked.models else None),
        )
        started = time.monotonic()
        calm = write_config(folder, corpus, features, "calm")
        assert run(calm, "--engine", asked.engine) == 0, (folder / "calm.log").read_text()
        fresh_s = time.monotonic() - started
        rows = dataset.open(str(folder / "calm")).num_rows
        print(f"undisturbed: {rows} rows, {fresh_s:.0f} s", flush=True)
        verdicts = []
        for number in range(asked.kills):
            kind = kinds[number % len(kinds)]
            one = attack(kind, folder, corpus, features, folder / "calm", dice, asked.engine, asked.twice)
            verdicts.append(one)
            print(
                f"{number + 1:3} {one.kind:7} killed {one.notes[0]} after {one.first_s:.0f} s; {one.runs} more runs, "
                f"{one.again_s:.0f} s: {one.lost} lost, {one.doubled} doubled, {one.differing} differing, "
                f"{one.blamed} blamed",
                flush=True,
            )
    again = [one.again_s for one in verdicts if one.runs == 1]
    if again:
        print(f"a continued run took {np.median(again):.0f} s, a fresh one {fresh_s:.0f} s (medians of {len(again)})")
    bad = [one for one in verdicts if not one.good]
    missed = sum(one.notes[0].startswith(_NOTHING) for one in verdicts)
    print(f"{len(verdicts) - missed} kills, and {missed} that met nothing")
    print(f"{len(bad)} with a lost, doubled, differing or blamed row")
    sys.exit(bool(bad))


def real_corpus(folder: Path, data: Path) -> Path:
    """A few hundred rows: pictures, sounds and clips."""
    folder.mkdir()
    for kind, count in (("images", 150), ("audio", 60), ("videos", 6)):
        files = sorted(path for path in (data / kind).iterdir() if path.suffix not in (".csv", ".md"))
        for path in files[:count]:
            if path.stat().st_size < 2_000_000:
                shutil.copy(path, folder / f"{kind}-{path.name}")
    return folder


def real_features(models: Path | None) -> dict[str, Any]:
    """Pictures and sound; ``models``: the folder of the demo checkpoints, None: without a model."""
    encoders: dict[str, dict[str, Any]] = {"picture": {"kind": "raw"}, "sound": {"kind": "raw"}}
    picture, sound = {"kind": "patch", "size": 64, "patch_size": 16}, {"kind": "audio_frame", "sample_rate": 16000}
    if models is not None:
        encoders = {
            "picture": {"kind": "clip", "checkpoint": str(models / "clip")},
            "sound": {"kind": "wav2vec2", "checkpoint": str(models / "wav2vec2")},
        }
        picture, sound = {"kind": "patch"}, {"kind": "audio_frame"}
    return {
        "picture": {"modality": "image", "tokenizer": picture, "encoder": encoders["picture"], "emit": ["tokens"]},
        "sound": {"modality": "audio", "tokenizer": sound, "encoder": encoders["sound"], "emit": ["tokens"]},
    }


if __name__ == "__main__":
    main()
