"""Tries inputs of one kind in this process, which an input may end; started by `tests.fuzz`.

Standard input: JSON with `kind`, `work`, `seed`, `first`, `seconds`, and `replay` or null. Each input is written to
`work/current.json` before it is tried, and one that failed is kept as `work/failed-NUMBER.json`; each line of standard
output is JSON: number, outcome, problems.
"""

from __future__ import annotations

import faulthandler
import importlib
import itertools
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.fuzz.cases import Case
from tests.fuzz.oracles import Oracles

CLASSES = {
    "configs": ("configs", "Configs"),
    "manifests": ("manifests", "Manifests"),
    "snapshots": ("datasets", "Snapshots"),
    "footers": ("datasets", "Footers"),
    "checkpoints": ("checkpoints", "Checkpoints"),
    "media": ("media", "Media"),
}
BATCH = 20
"""Inputs in turn by plain mutation, and by Hypothesis where a kind has a strategy."""
_ADDRESS_SPACE = 8 << 30
"""More than this process has by then: beyond it an allocation fails instead of taking the machine's memory."""


def main() -> None:
    asked = json.loads(sys.stdin.readline())
    work = Path(asked["work"])
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no result
    tempfile.tempdir = str(work / "box-tmp")
    os.environ["TMPDIR"] = tempfile.tempdir
    (work / "box-tmp").mkdir(exist_ok=True)
    module, name = CLASSES[asked["kind"]]
    kind = getattr(importlib.import_module(f"tests.fuzz.{module}"), name)(work)
    box, outside = work / "box", work / "outside"
    shutil.rmtree(outside, ignore_errors=True)
    box.mkdir(exist_ok=True)
    oracles = Oracles(box, outside, kind.seconds, kind.memory_mb, kind.starts)
    if not kind.starts:  # else its processes would inherit it, and they have a limit of their own
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + _ADDRESS_SPACE, resource.RLIM_INFINITY))
    faulthandler.enable()
    faulthandler.register(signal.SIGXCPU, chain=True)  # too much time ends the process, and says where
    print(json.dumps({"ready": True}), file=out)
    until = time.monotonic() + asked["seconds"]
    replay = asked["replay"]
    cases = [(0, Case.load(Path(replay))[1])] if replay else _cases(kind, asked["seed"], asked["first"])
    for number, case in cases:
        if time.monotonic() > until and not replay:
            break
        case.save(work / "next.json", asked["kind"])
        os.replace(work / "next.json", work / "current.json")
        shutil.rmtree(box)
        box.mkdir()
        kind.prepare(box)
        case.write(box, outside)
        started = time.monotonic()
        outcome, problems = oracles.tried(lambda case=case: kind.run(box, case))
        line = {"number": number, "outcome": outcome, "problems": problems, "seconds": time.monotonic() - started}
        if problems:  # the next input takes its place
            case.save(work / f"failed-{number}.json", asked["kind"])
        print(json.dumps(line), file=out)


def _cases(kind: Any, seed: int, first: int) -> Iterator[tuple[int, Case]]:
    """Inputs from number ``first`` on. Each depends on the seed and on its number, or on its batch's, alone."""
    for batch in itertools.count(first // BATCH):
        numbers = range(batch * BATCH, (batch + 1) * BATCH)
        if batch % 2 and hasattr(kind, "strategy"):
            made: list[Case] = _by_hypothesis(kind.strategy(), f"{seed}/{batch}")
        else:
            made = [kind.case(random.Random(f"{seed}/{number}")) for number in numbers if number >= first]
            numbers = range(max(first, numbers.start), numbers.stop)
        yield from ((number, case) for number, case in zip(numbers, made, strict=False) if number >= first)


def _by_hypothesis(strategy: Any, name: str) -> list[Case]:
    import hypothesis
    from hypothesis import HealthCheck, Phase

    made: list[Case] = []

    @hypothesis.seed(name)
    @hypothesis.settings(
        max_examples=BATCH,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(strategy)
    def collect(case: Case) -> None:
        made.append(case)

    collect()
    return made


if __name__ == "__main__":
    main()
