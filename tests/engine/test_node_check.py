"""What a node lacks is found on it, and said in words that name the setting."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline import sources
from pipeline.checkpoint.checkpoint import resolve
from pipeline.core.versions import installed
from pipeline.engine import node_check
from pipeline.engine.node_check import NodeCheck, file_sha256
from pipeline.stages.units import Unit
from tests.stages.media_fixtures import IMAGE, config


@pytest.fixture
def unit(tmp_path: Path) -> Unit:
    """A plan of two pictures, of which the first cannot be read."""
    (tmp_path / "in").mkdir()
    for name in "ab":
        Image.new("RGB", (20, 20)).save(tmp_path / "in" / f"{name}.png")
    source = sources.build(config(tmp_path / "in", {"i": IMAGE}).source)
    source.check("source")
    (tmp_path / "out").mkdir()
    pq.write_table(pa.concat_tables(source.list()), tmp_path / "out" / "plan.parquet")
    (tmp_path / "in" / "a.png").unlink()
    return str(tmp_path / "out" / "plan.parquet"), 0, 2


@pytest.fixture
def check(tmp_path: Path, models: Path, unit: Unit) -> NodeCheck:
    shutil.copytree(models / "clip", tmp_path / "clip")
    (tmp_path / "head.safetensors").write_bytes(b"weights")
    checkpoint = resolve(str(tmp_path / "clip"), None, "features.i.encoder.checkpoint")
    made = NodeCheck(
        installed(),
        ((checkpoint, checkpoint.weights_sha256()),),
        {"features.i.head.weights": (str(tmp_path / "head.safetensors"), file_sha256(tmp_path / "head.safetensors"))},
        sources.build(config(tmp_path / "in", {"i": IMAGE}).source).allowed_roots(),
        str(tmp_path / "out"),
        uses_gpus=True,
    )
    made = made.with_sample_file(unit)
    assert made.sample_file == str(tmp_path / "in" / "b.png")
    assert made.problem(unit, 0.0) is None
    return made


def _change(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("break_it", "where", "found", "allowed"),
    [
        (
            lambda folder: (folder / "in" / "b.png").unlink(),
            "source.path",
            "it cannot read '{folder}/in/b.png', which the driver can (no such file: {folder}/in/b.png)",
            "a folder that all nodes mount",
        ),
        (
            lambda folder: shutil.rmtree(folder / "out"),
            "output.path",
            "it does not see what the driver has written to '{folder}/out' (no such file: {folder}/out/plan.parquet)",
            "a folder that all nodes mount",
        ),
        (
            lambda folder: shutil.rmtree(folder / "clip"),
            "features.i.encoder.checkpoint",
            "no folder '{folder}/clip'",
            "put it at that path on all nodes",
        ),
        (
            lambda folder: _change(folder / "clip" / "model.safetensors"),
            "features.i.encoder.checkpoint",
            "'{folder}/clip' holds other weights than on the driver",
            "the same files",
        ),
        (
            lambda folder: _change(folder / "head.safetensors"),
            "features.i.head.weights",
            "'{folder}/head.safetensors' is not the file that the driver has",
            "the same file",
        ),
        (
            lambda folder: (folder / "head.safetensors").unlink(),
            "features.i.head.weights",
            "'{folder}/head.safetensors' is not the file that the driver has",
            "the same file",
        ),
    ],
)
def test_what_is_missing(
    tmp_path: Path, check: NodeCheck, unit: Unit, break_it: Any, where: str, found: str, allowed: str
) -> None:
    break_it(tmp_path)
    problem = check.problem(unit, 0.0)
    assert problem is not None
    assert problem[:2] == (where, found.format(folder=tmp_path))
    assert problem[2].startswith(allowed)


def test_other_versions(check: NodeCheck, unit: Unit) -> None:
    other = replace(check, versions={**check.versions, "torch": "1.0", "python": "3.11.0"})
    problem = other.problem(unit, 0.0)
    assert problem is not None
    assert problem[:2] == ("compute.address", f"torch {installed()['torch']} (1.0 here)")


def test_a_declared_gpu_without_a_device(check: NodeCheck, unit: Unit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_check, "visible_gpus", list)
    for problem in (check.problem(unit, 2.0), check.device_problem(2.0)):
        assert problem is not None
        assert problem[:2] == ("compute.pools", "2 GPUs are declared, and there is no device")
        assert "num_gpus: 0" in problem[2]
    assert replace(check, uses_gpus=False).problem(unit, 2.0) is None
    monkeypatch.setattr(node_check, "visible_gpus", lambda: ["0"])
    assert check.problem(unit, 1.0) is None


def test_a_folder_that_cannot_be_written(check: NodeCheck, unit: Unit, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = replace(check, root="/proc/1/here").problem(unit, 0.0)
    assert problem is not None
    assert problem[0] == "output.path"
    assert problem[1].startswith("cannot write to '/proc/1/here' (")
