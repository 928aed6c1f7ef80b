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
from pipeline.checkpoint import checkpoint
from pipeline.checkpoint.checkpoint import resolve
from pipeline.core.versions import installed
from pipeline.engine import node_check
from pipeline.engine.node_check import NodeCheck, NodeTask
from pipeline.stages.units import Unit
from pipeline.storage.settings import DEFAULT
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
    return NodeCheck(
        versions=installed(),
        checkpoints=(resolve(str(tmp_path / "clip"), None, "features.i.encoder.checkpoint"),),
        heads={"features.i.head.weights": str(tmp_path / "head.safetensors")},
        roles=("image",),
        allowed=sources.build(config(tmp_path / "in", {"i": IMAGE}).source).allowed_roots(),
        storage=DEFAULT,
        root=str(tmp_path / "out"),
        uses_gpus=True,
    )


@pytest.fixture
def task(check: NodeCheck, unit: Unit, tmp_path: Path) -> NodeTask:
    made = check.on_driver(pq.read_table(unit[0]), unit[0])
    assert made.sample_file == str(tmp_path / "in" / "b.png")
    assert made.problem(0.0) is None
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
            "'{folder}/clip' holds other files than on the driver",
            "the same files",
        ),
        (
            lambda folder: _change(folder / "clip" / "tokenizer.json"),
            "features.i.encoder.checkpoint",
            "'{folder}/clip' holds other files than on the driver",
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
def test_what_is_missing(tmp_path: Path, task: NodeTask, break_it: Any, where: str, found: str, allowed: str) -> None:
    break_it(tmp_path)
    problem = task.problem(0.0)
    assert problem is not None
    assert problem[:2] == (where, found.format(folder=tmp_path))
    assert problem[2].startswith(allowed)


def test_a_node_that_only_decodes_needs_no_weights(tmp_path: Path, task: NodeTask) -> None:
    decodes = replace(task, check=replace(task.check, encodes_on_cpus=False))
    (tmp_path / "clip" / "model.safetensors").unlink()
    (tmp_path / "head.safetensors").unlink()
    assert decodes.problem(0.0) is None
    _change(tmp_path / "clip" / "tokenizer.json")
    problem = decodes.problem(0.0)
    assert problem is not None
    assert problem[0] == "features.i.encoder.checkpoint"


def test_a_hub_id_is_fetched_by_the_node(task: NodeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (there,) = task.check.checkpoints
    hub = replace(there, path=str(tmp_path / "elsewhere"), name="owner/clip", revision="a" * 40)
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(checkpoint, "resolve", lambda *name: asked.append(name) or there)
    assert replace(task, check=replace(task.check, checkpoints=(hub,))).problem(0.0) is None
    assert asked == [("owner/clip", "a" * 40, there.where)]


def test_other_versions(task: NodeTask) -> None:
    here = installed()
    for versions, found in (
        ({**here, "torch": "1.0"}, f"torch {here['torch']} (1.0 on the driver)"),
        ({**here, "torch": here["torch"].partition("+")[0] + "+cpu"}, None),
    ):
        problem = replace(task, check=replace(task.check, versions=versions)).problem(0.0)
        assert (problem and problem[:2]) == (found and ("compute.address", found))


def test_a_declared_gpu_without_a_device(task: NodeTask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_check, "has_gpu", lambda: False)
    for problem in (task.problem(2.0), task.check.device_problem(2.0)):
        assert problem is not None
        assert problem[:2] == ("compute.pools", "2 GPUs are declared, and there is no device")
        assert "compute.missing_gpus: use_cpu" in problem[2]
    assert replace(task.check, uses_gpus=False).device_problem(2.0) is None
    monkeypatch.setattr(node_check, "has_gpu", lambda: True)
    assert task.problem(1.0) is None


def test_a_folder_that_cannot_be_written(task: NodeTask) -> None:
    problem = replace(task, check=replace(task.check, root="/proc/1/here")).problem(0.0)
    assert problem is not None
    assert problem[0] == "output.path"
    assert problem[1].startswith("cannot write to '/proc/1/here' (")


def test_any_other_error_is_told_with_its_step(task: NodeTask, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(path: str) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(node_check, "file_sha256", fails)
    assert task.problem(0.0) == (
        "features",
        "PermissionError: [Errno 13] Permission denied",
        "the same on all nodes as on the driver",
    )
