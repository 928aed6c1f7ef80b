"""The stages as Ray runs them: with little room, beside a GPU, and where one cannot be set up."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from pipeline import dataset, run
from pipeline.core.errors import TesseraError
from pipeline.engine.ray import graph
from tests.engine.slow_encoder import seen
from tests.stages.media_fixtures import IMAGE, config
from tests.support import ROOT


def test_a_twentieth_of_a_cpu_is_enough_for_the_tasks(
    ray_session: Any, prepare: Callable[..., Any], tmp_path: Path
) -> None:
    """Somebody else holds the rest of the cluster, as happens on a shared one."""
    corpus = tmp_path / "in"
    corpus.mkdir()
    for i in range(9):
        Image.new("RGB", (20, 20)).save(corpus / f"{i}.png")

    class Holder:
        def ready(self) -> None: ...

    holder = ray_session.remote(num_cpus=1.45)(Holder).remote()
    ray_session.get(holder.ready.remote())
    asked = config(
        corpus,
        {"i": IMAGE},
        compute={"block_rows": 4, "pools": {"default": {"max_actors": 1, "num_cpus": 0.5}}},
    )
    try:
        run.extract(prepare(asked, False, None, "ray"), show_progress=False)
    finally:
        ray_session.kill(holder)
    assert dataset.open(str(tmp_path / "out")).num_rows == 9


def test_blocks_are_cut_by_the_task_that_makes_them(ray_session: Any) -> None:
    """With the resources of that task: Ray's own step would ask for a whole CPU, which actors may hold."""
    made = ray_session.data.from_arrow([pa.table({"n": range(10)}), pa.table({"n": range(10, 17)})])
    made = made.map_batches(lambda table: table, batch_format="pyarrow", batch_size=None, num_cpus=0.05)
    cut = graph._in_blocks(made, 4)
    before = cut._logical_plan.dag.input_dependencies[0]
    assert cut._logical_plan.dag.ray_remote_args == before.ray_remote_args
    assert before.ray_remote_args["num_cpus"] == 0.05
    blocks = [ray_session.get(ref) for bundle in cut.iter_internal_ref_bundles() for ref in bundle.block_refs]
    assert max(map(len, blocks)) <= 4
    assert sorted(n for block in blocks for n in block["n"].to_pylist()) == list(range(17))


def test_the_dashboard_names_the_stages(
    ray_session: Any, prepare: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's names of steps, tasks and actors are those of the stages."""
    (tmp_path / "in").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "in" / "a.png")
    names: list[str] = []
    write = ray_session.data.Dataset.write_datasink

    def recording(made: Any, *arguments: Any, **options: Any) -> Any:
        step = made._logical_plan.dag
        while step.input_dependencies:
            names.append(step.name)
            step = step.input_dependencies[0]
        return write(made, *arguments, **options)

    monkeypatch.setattr(ray_session.data.Dataset, "write_datasink", recording)
    run.extract(prepare(config(tmp_path / "in", {"i": IMAGE}), False, None, "ray"), show_progress=False)
    assert {"MapBatches(read+probe)", "MapBatches(decode+encode)"} <= set(names)


@pytest.mark.slow
def test_beside_a_gpu_the_stages_stand_apart(tmp_path: Path) -> None:
    """Of a GPU that a cluster says it has each pool asks for a part; an encoder takes several blocks at once."""
    corpus = tmp_path / "in"
    corpus.mkdir()
    for i in range(20):
        Image.new("RGB", (40, 30), (i, 0, 0)).save(corpus / f"{i}.png")
    (corpus / "bad.png").write_bytes(b"no picture")
    pools = {"default": {"num_gpus": 0.5, "max_actors": 1}, "b": {"num_gpus": 0.5}}
    features = {"raw": IMAGE, "other": {**IMAGE, "pool": "b"}}
    asked = config(corpus, features, compute={"block_rows": 7, "pools": pools})
    (tmp_path / "c.yaml").write_text(asked.model_dump_json())
    program = [sys.executable, "-m", "tests.engine.ray.programs.count_concurrent_encodes"]
    command = [*program, str(tmp_path / "c.yaml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    table = dataset.open(str(tmp_path / "out")).to_arrow()
    assert len(table) == 20
    assert {most for name in features for most, _ in seen(tmp_path, name)} <= {2, 3}
    assert table["raw_tokens"].null_count == table["other_tokens"].null_count == 0
    assert dataset.open(str(tmp_path / "out")).num_failures == 2


def test_a_broken_setup_in_a_worker_says_its_own_words(ray_session: Any, models: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "in"
    corpus.mkdir()
    (corpus / "a.txt").write_text("words")
    checkpoints = tmp_path / "models"
    shutil.copytree(models / "bert", checkpoints / "bert")
    words = {
        "modality": "text",
        "tokenizer": {"kind": "text"},
        "encoder": {"kind": "bert", "checkpoint": str(checkpoints / "bert")},
    }
    prepared = run.prepare(config(corpus, {"words": words}), False, None, "ray")
    shutil.rmtree(checkpoints)
    with pytest.raises(TesseraError, match=str(checkpoints)) as caught:
        run.extract(prepared, show_progress=False)
    assert "\n" not in str(caught.value)
    deadline = time.monotonic() + 20
    while ray_session.available_resources().get("CPU") != 2.0:  # while the error, with its traceback, is still there
        assert time.monotonic() < deadline, "an actor of the run that broke off holds CPUs"
        time.sleep(0.1)
