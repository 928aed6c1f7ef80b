"""Whole runs over a storage that fails: files that stay broken are `io` failures, the dataset's own place ends the run
in one line, nothing is half-published, and the next run continues."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support import ROOT, faulty
from tests.support.faulty import Fault

_OPS = ("info", "open", "read", "write", "create", "list", "remove", "copy")


def in_worker() -> None:
    """Ray's setup hook: the scheme, and short waits."""
    from pipeline.storage import retry

    faulty.register()
    retry.BASE_S, retry.MAX_S = 0.01, 0.02


def _runs(corpus: Path, out: Path, plans: list[dict[str, dict[str, list[dict[str, Any]]]]]) -> list[dict[str, Any]]:
    """What each of some runs says, one after the other in one Ray."""
    program = "tests.end_to_end.programs.extract_over_faulty_storage"
    command = [sys.executable, "-m", program, str(corpus), str(out), json.dumps(plans)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=280)
    lines = done.stdout.splitlines()
    reported = [json.loads(line.removeprefix("RESULT ")) for line in lines if line.startswith("RESULT ")]
    assert len(reported) == len(plans), done.stdout + done.stderr
    return reported


def _ids(out: Path, folder: str) -> list[str]:
    import pyarrow.parquet as pq

    files = sorted((out / "v1" / folder).glob("*.parquet"))
    return sorted(
        name for file in files for name in pq.read_table(file, columns=["sample_id"])["sample_id"].to_pylist()
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_runs_over_a_storage_that_fails(tmp_path: Path) -> None:
    corpus, out = tmp_path / "corpus", tmp_path / "out"
    corpus.mkdir()
    out.mkdir()
    names = [f"{i:02d}.png" for i in range(12)]
    for i, name in enumerate(names):
        Image.new("RGB", (32, 32), (10 * i, 0, 255)).save(corpus / name)
    broken = {
        "03.png": [vars(Fault("open", "reset"))],
        "04.png": [vars(Fault("read", "short"))],  # never a byte: a read goes on where the last one ended
    }
    stutters = {"*": [vars(Fault(op, "slow_down", times=2)) for op in _OPS]}
    full = {"v1/data/*": [vars(Fault("write", "full", after=100))]}
    denied = {"v1/data/*": [vars(Fault("write", "denied_s3"))]}
    reported = _runs(
        corpus,
        out,
        [
            {"corpus": {}, "out": full},
            {"corpus": {}, "out": denied},
            {"corpus": {**broken, **stutters}, "out": stutters},
            {"corpus": {}, "out": {}},
        ],
    )
    for ended, why in zip(reported[:2], ("it is full", "access is denied"), strict=True):
        assert f"cannot write 'faulty://{out}/v1/data/" in ended["error"]
        assert why in ended["error"]
        assert "Failed to apply" not in ended["error"], "advice of Ray's, which is none for a user of ours"
    third, last = reported[2]["report"], reported[3]["report"]
    assert third["snapshot"] == 1  # the first two committed nothing
    assert last["snapshot"] == 2
    assert json.dumps(third).count('"io": 2') >= 1
    assert _ids(out, "data") == names
    assert not list(out.rglob("*.tmp"))
