"""On a real cluster: what a node lacks ends the run before it starts, and a cluster without nodes is waited for."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from pipeline import dataset
from tests.stages.media_fixtures import IMAGE, config
from tests.support.ray_cluster import RayCluster, can_hide_folders, python_without_tessera

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    with RayCluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    (tmp_path / "corpus" / "in").mkdir(parents=True)
    for number in range(20):
        Image.new("RGB", (20 + number, 20)).save(tmp_path / "corpus" / "in" / f"{number:02d}.png")
    made = config(tmp_path / "corpus" / "in", {"i": IMAGE}, compute={"wait_for_nodes_s": 120})
    out = made.output.model_copy(update={"path": str(tmp_path / "data" / "out")})
    (tmp_path / "config.json").write_text(made.model_copy(update={"output": out}).model_dump_json())
    return tmp_path / "config.json"


def test_no_node_comes_or_one_comes(cluster: RayCluster, settings: Path, tmp_path: Path) -> None:
    waiting = "the cluster has no node with a CPU yet: asking its autoscaler for one, waiting for at most"
    late = cluster.extract(settings, "--set", "compute.wait_for_nodes_s=2")
    _, errors = late.communicate(timeout=60)
    assert late.returncode == 2, errors
    assert errors.splitlines()[0] == f"{waiting} 2 s"
    assert "compute.wait_for_nodes_s: no node with a CPU joined the cluster within 2 s; start nodes" in errors

    run = cluster.extract(settings, "--json")
    assert run.stderr is not None
    assert run.stderr.readline() == f"{waiting} 120 s\n"
    node = cluster.add(cpus=2)
    output, errors = run.communicate(timeout=120)
    assert run.returncode == 0, errors
    assert json.loads(output)["rows_written"] == 20
    assert len(dataset.open(str(tmp_path / "data" / "out")).to_arrow()) == 20
    cluster.stop(node)


@pytest.mark.parametrize(
    ("variables", "has"),
    [
        ({"RAY_AUTH_TOKEN": None, "RAY_AUTH_MODE": None}, "none"),
        ({"RAY_AUTH_TOKEN": "f" * 64}, "another token"),
    ],
)
def test_a_cluster_s_token(
    cluster: RayCluster, settings: Path, tmp_path: Path, variables: dict[str, str | None], has: str
) -> None:
    started = time.monotonic()
    run = cluster.extract(settings, **variables, HOME=str(tmp_path))
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 2, errors
    assert errors == (
        f"tessera: RAY_ADDRESS: the Ray cluster at '{cluster.address}' asks for its token, and this process has {has}; "
        "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, as on its head\n"
    )
    assert time.monotonic() - started < 20


def test_a_node_without_the_package(cluster: RayCluster, settings: Path, tmp_path: Path) -> None:
    nodes = [cluster.add(), cluster.add(python=python_without_tessera(tmp_path / "other"))]
    run = cluster.extract(settings)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 2, errors
    assert "tessera: compute.address: node " in errors
    assert "it cannot import Tessera (ModuleNotFoundError: No module named 'pipeline'); install Tessera" in errors
    assert errors.count("\n") == 1
    for node in nodes:
        cluster.stop(node)


@pytest.mark.skipif(not can_hide_folders(), reason="a node cannot have a file system of its own here")
@pytest.mark.parametrize(
    ("hidden", "words"),
    [
        ("corpus", "source.path: node {}: it cannot read '{folder}/corpus/in/00.png', which the driver can"),
        ("data", "output.path: node {}: it does not see what the driver has written to '{folder}/data/out"),
    ],
)
def test_a_folder_of_the_driver_only(
    cluster: RayCluster, settings: Path, tmp_path: Path, hidden: str, words: str
) -> None:
    (tmp_path / "data").mkdir()
    nodes = [cluster.add(), cluster.add(hidden=[tmp_path / hidden])]
    run = cluster.extract(settings)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 2, errors
    before, after = words.format("\0", folder=tmp_path).split("\0")
    assert before in errors
    assert after in errors
    assert "; a folder that all nodes mount at the same path, or a URL such as s3://..." in errors
    for node in nodes:
        cluster.stop(node)


def test_a_node_that_declares_a_gpu_that_is_not_there(
    cluster: RayCluster, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [cluster.add(cpus=2), cluster.add(cpus=2, gpus=1)]
    pools = ("--set", "compute.pools.default.num_gpus=1")
    run = cluster.extract(settings, *pools)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 2, errors
    assert "compute.pools: node " in errors
    assert ": 1 GPUs are declared, and there is no device; start the node without --num-gpus" in errors
    for node in nodes:
        cluster.stop(node)
