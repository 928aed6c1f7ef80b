"""Starts workers, one kind after the other, and counts what they report; see the package."""

from __future__ import annotations

import argparse
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

from tests.fuzz import KINDS
from tests.fuzz.cases import Case
from tests.support import ROOT

_START_S, _SILENT_S = 240.0, 420.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--seconds", type=float, default=600.0, help="for all kinds together, starts left out")
    parser.add_argument("--seed", type=int, default=None, help="default: the time")
    parser.add_argument("--keep", type=Path, help="folder for a file of each failure; default: a new one")
    parser.add_argument("--replay", type=Path, help="one such file, tried again")
    asked = parser.parse_args()
    if unknown := set(asked.kinds) - set(KINDS):
        parser.error(f"no kind {', '.join(sorted(unknown))}")
    if asked.replay:
        kind, _ = Case.load(asked.replay)
        return 1 if _tried(kind, 0, 60.0, asked.replay.parent, asked.replay) else 0
    kinds = asked.kinds or list(KINDS)
    seed = int(time.time()) if asked.seed is None else asked.seed
    keep = asked.keep or Path(tempfile.mkdtemp(prefix="tessera-fuzz-"))
    keep.mkdir(parents=True, exist_ok=True)
    print(f"seed {seed}; failures are kept in {keep}", flush=True)
    return 1 if sum([_tried(kind, seed, asked.seconds / len(kinds), keep, None) for kind in kinds]) else 0


def _tried(kind: str, seed: int, seconds: float, keep: Path, replay: Path | None) -> int:
    """The failures that differ, of inputs of one kind. Prints a line for each, and one for the kind."""
    counts: Counter[str] = Counter()
    failures: dict[str, tuple[int, Path]] = {}
    slowest, left, first = 0.0, seconds, 0
    with tempfile.TemporaryDirectory(prefix="tessera-fuzz-") as folder:
        while left > 0:
            work = Path(folder) / str(first)
            work.mkdir()
            run = _Worker(
                {
                    "kind": kind,
                    "work": str(work),
                    "seed": seed,
                    "first": first,
                    "seconds": left,
                    "replay": replay and str(replay),
                }
            )
            for line in run.lines():
                counts[line["outcome"]] += 1
                first, slowest = line["number"] + 1, max(slowest, line["seconds"])
                for problem in line["problems"]:
                    _note(failures, problem, work / f"failed-{line['number']}.json", kind, keep)
            left -= run.worked_s
            if not run.died:
                break
            counts["died"] += 1
            _note(failures, run.died, work / "current.json", kind, keep)
            first += 1
            if replay or not (work / "current.json").exists():
                break
    tried = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    print(
        f"{kind}: {sum(counts.values())} inputs ({tried}), slowest {slowest:.1f} s, {len(failures)} failures",
        flush=True,
    )
    return len(failures)


def _note(failures: dict[str, tuple[int, Path]], problem: str, current: Path, kind: str, keep: Path) -> None:
    """Keeps the first input of a failure; two are the same if they differ in numbers and quoted words only."""
    signature = re.sub(r"\d+|'[^']*'|\"[^\"]*\"", "*", problem)[:160]
    if signature in failures:
        return
    path = keep / f"{kind}-{zlib.crc32(signature.encode()):08x}.json"
    if current.exists():
        _, case = Case.load(current)
        case.save(path, kind, problem)
    failures[signature] = (len(failures), path)
    print(f"  {kind}: {problem[:400]}\n    {path}", flush=True)


class _Worker:
    """A worker process, which may die, hang, and leave processes behind."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self.died, self.worked_s = "", 0.0
        self.stderr = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.worker"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
            start_new_session=True,
            env={**os.environ, "PYTHONHASHSEED": "0", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        )
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(asked).encode() + b"\n")
        self.process.stdin.flush()

    def lines(self) -> Any:
        """What it reports, until it ends or is silent for too long."""
        assert self.process.stdout is not None
        started = time.monotonic()
        ready, buffer, hung = None, b"", False
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while True:
                if not selector.select(_START_S if ready is None else _SILENT_S):
                    hung = True
                    break
                data = os.read(self.process.stdout.fileno(), 65536)
                if not data:
                    break
                *whole, buffer = (buffer + data).split(b"\n")
                for one in whole:
                    line = json.loads(one)
                    if "ready" in line:
                        ready = time.monotonic()
                    else:
                        yield line
        self.worked_s = time.monotonic() - (ready or started)
        os.killpg(self.process.pid, signal.SIGKILL) if hung else None
        code = self.process.wait()
        self.stderr.seek(0)
        words = self.stderr.read().decode(errors="replace").strip()
        if code or hung:
            how = "over its time by the clock" if "Timeout (" in words else "no answer" if hung else _ending(code)
            self.died = f"the process ended ({how}): {_last(words)}"


def _ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _last(words: str) -> str:
    """The line of ours in the traceback that faulthandler leaves, or the last words."""
    ours = [line.strip() for line in words.splitlines() if "/pipeline/" in line and "line" in line]
    return f"{ours[0]} ({len(ours)} frames of ours)" if ours else words[-200:]


if __name__ == "__main__":
    sys.exit(main())
