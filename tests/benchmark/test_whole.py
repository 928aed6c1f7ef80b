"""`tessera benchmark` from the command to the file, over the smallest of corpora: its arithmetic, and wide ratios."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import benchmark
from tests.benchmark.measured import picture
from tests.support import ROOT

ROWS = 3000


def write_config(folder: Path, demo_corpus: Path, models: Path) -> str:
    raw = {
        "source": {"kind": "files", "path": str(demo_corpus / "pictures")},
        "output": {"path": "./out"},
        "features": {"p": picture(models)},
    }
    (folder / "c.yaml").write_text(yaml.safe_dump(raw))
    return str(folder / "c.yaml")


def test_the_encoding_stage_alone(
    demo_corpus: Path, models: Path, tmp_path: Path, called: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "_STAGE_S", 1.0)
    config, file = write_config(tmp_path, demo_corpus, models), tmp_path / "r.json"
    done = called("benchmark", config, "--stage", "encode", "--output", str(file), "--set", "compute.block_rows=16")
    assert (done.returncode, done.stderr) == (0, "")
    reported = json.loads(file.read_text())
    stage = reported["stage"]
    assert set(reported) == {"machine", "samples_drawn", "stage"}
    assert stage["rows"] % 64 == 0
    assert stage["ratio"] == pytest.approx(stage["stage_rows_per_second"] / stage["model_rows_per_second"], rel=1e-2)
    assert 0.2 < stage["ratio"] < 1.2
    assert f"rows/s: {stage['ratio']:.3f} of them" in done.stdout
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_encoding_stage_alone_as_json(
    demo_corpus: Path, models: Path, tmp_path: Path, called: Callable[..., Any]
) -> None:
    config, file = write_config(tmp_path, demo_corpus, models), tmp_path / "r.json"
    done = called("benchmark", config, "--stage", "encode", "--json", "--output", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == json.loads(file.read_text())


def test_mistakes_are_told_before_anything_is_measured(
    demo_corpus: Path, models: Path, tmp_path: Path, called: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, encode = write_config(tmp_path, demo_corpus, models), ["--stage", "encode"]
    for options, words in (
        ([*encode, "--rows", "5"], "--stage: 'encode' with --rows or --against"),
        ([*encode, "--against", "reference"], "--stage: 'encode' with --rows or --against"),
        ([*encode, "--picture", str(tmp_path / "p.svg")], "--picture: together with --stage encode"),
        (["--set", "compute.address=127.0.0.1:1"], "compute.address: a cluster"),
        (["--set", f"source.path={tmp_path / 'nowhere'}"], "source.path: "),
        (["--set", f"source.path={demo_corpus / 'notes'}"], "source: no sample holds what a feature reads"),
        (["--set", "features.p.encoder.checkpoint=nowhere"], "features.p.encoder.checkpoint: no folder"),
    ):
        done = called("benchmark", config, *options)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done
        assert words in done.stderr
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert "RAY_ADDRESS: a cluster at '127.0.0.1:1'" in called("benchmark", config).stderr
    assert os.listdir(tmp_path) == ["c.yaml"]


@pytest.mark.benchmark
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_what_it_tells_adds_up(demo_corpus: Path, models: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, demo_corpus, models)
    command = [sys.executable, "-m", "jobs.cli", "benchmark", config, "--rows", str(ROWS)]
    options = ["--against", "reference", "--output", str(tmp_path / "r.json"), "--picture", str(tmp_path / "p.svg")]
    done = subprocess.run(
        [*command, *options],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200"},
        timeout=1400,
        check=False,
    )
    assert done.returncode == 0, done
    reported = json.loads((tmp_path / "r.json").read_text())
    machine, baseline, reference, run = (reported[name] for name in ("machine", "bare", "reference", "run"))

    bare_ms = baseline["decode_ms"] + baseline["encode_ms"]
    assert baseline["encode_ms"] == pytest.approx(sum(baseline["encode_ms_by_feature"].values()), rel=1e-2)
    assert baseline["ideal_rows_per_second"] == pytest.approx(machine["cores"] * 1e3 / bare_ms, rel=1e-2)
    reference_ms = sum(reference["ms_by_feature"].values())
    assert reference["rows_per_second"] == pytest.approx(machine["cores"] * 1e3 / reference_ms, rel=1e-2)

    few, many = run["rows"]
    assert (few, many) == (ROWS, 3 * ROWS)
    steady = [seconds - first for seconds, first in zip(run["seconds"], run["startup"]["first_row_s"], strict=True)]
    margin = steady[1] - steady[0]
    speed, rows = run["rows_per_second"], many - few
    assert speed == pytest.approx(rows / margin, rel=1e-2)
    assert run["efficiency"] == pytest.approx(speed / baseline["ideal_rows_per_second"], rel=1e-2)
    assert run["against_reference"] == pytest.approx(speed / reference["rows_per_second"], abs=1e-3, rel=1e-2)
    assert run["startup"]["once_s"] + few / speed == pytest.approx(run["seconds"][0], rel=1e-2)
    cpu = sum(run["cpu_ms_per_row"].values()) * rows / 1e3
    assert run["cores_busy"] == pytest.approx(cpu / margin, rel=2e-2)
    ends = dict.fromkeys(run["cpu_ms_per_row"], 0.0) | run["timeline"][-1][1]
    for kind, ms in run["cpu_ms_per_row"].items():  # of the large run: what is paid once, and what its rows cost
        assert run["startup"]["cpu_s"][kind] + ms * many / 1e3 == pytest.approx(ends[kind], abs=0.05, rel=1e-2)

    assert run["of_all_cores"] == pytest.approx(speed / baseline["all_cores_rows_per_second"], rel=1e-2)
    each = machine["cores"] * 1e3 / baseline["all_cores_ms"]  # equal only if all cores are as fast
    assert baseline["all_cores_rows_per_second"] == pytest.approx(each, rel=0.2)
    assert 0.3 < baseline["all_cores_rows_per_second"] / baseline["ideal_rows_per_second"] < 1.5

    assert 0 < run["efficiency"] <= 1.5
    assert run["peak_memory_bytes"][1] / run["peak_memory_bytes"][0] <= 1.5
