"""The engine for one machine beside GPUs: each pool has its own workers, and the other cores decode for them.

The GPUs are so in name only; what a real one computes is tested by `pytest -m gpu`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from pipeline import dataset, run
from pipeline.config.models import ComputeConfig
from pipeline.core.errors import ConfigError, TesseraError
from pipeline.core.system import devices
from pipeline.core.system.cpus import available_cpus
from pipeline.core.system.memory import available_memory
from pipeline.engine._block_queue import BlockQueue
from pipeline.engine._local_worker import LocalWorker
from pipeline.engine.local_layout import Layout, Machine, WorkerGroup, layout
from pipeline.engine.spec import PipelineSpec, SinkSpec, StageSpec, WorkersSpec
from pipeline.run import pipeline
from tests.engine.slow_encoder import SlowEncode, seen
from tests.stages.media_fixtures import IMAGE, config


@dataclass
class Stage:
    name: str

    def setup(self) -> None: ...


def _layout(
    cpus: int, gpus: Sequence[str], pools: dict[str, dict[str, Any]], shares_gpus: bool = True, memory: int = 1 << 40
) -> Layout:
    workers = {"probe": WorkersSpec("tasks", num_cpus=0.05), "decode": WorkersSpec("tasks", num_cpus=1.0)}
    workers |= {name: WorkersSpec("pool", **options) for name, options in pools.items()}
    stages = tuple(StageSpec(name, Stage(name), name) for name in workers)
    sink = SinkSpec(lambda name: None, "r", 1)  # type: ignore[arg-type, return-value]
    spec = PipelineSpec(stages, workers, sink, 32, shares_gpus, task_bytes=1 << 30, model_bytes=3 << 30)
    return layout(spec, Machine(cpus, memory, tuple(gpus)))


def _groups(found: Layout) -> list[tuple[list[str], list[str], int]]:
    """For each group the names of its stages, the GPUs of its workers, and how many blocks each maps at a time."""
    return [
        (
            [stage.name for phase in group.phases for stage in found.phases[phase]],
            [one.get("CUDA_VISIBLE_DEVICES", "all") for one in group.environments],
            group.concurrency,
        )
        for group in found.groups
    ]


def test_each_gpu_has_a_worker_of_the_pool_and_the_other_cores_decode() -> None:
    found = _groups(_layout(8, ["0", "1"], {"a": {"concurrent_blocks": 3}}))
    assert found == [(["probe", "decode"], ["all"] * 6, 1), (["a"], ["0", "1"], 3)]


def test_pools_share_a_gpu_unless_they_say_otherwise() -> None:
    found = _groups(_layout(8, ["GPU-x"], {"a": {}, "b": {}}))
    assert [gpus for _, gpus, _ in found[1:]] == [["GPU-x"], ["GPU-x"]]
    found = _groups(_layout(8, ["0", "1", "2"], {"a": {"num_gpus": 2, "max_workers": 1}, "b": {"num_gpus": 0.5}}))
    assert [gpus for _, gpus, _ in found[1:]] == [["0,1"], ["2", "2"]]


def test_workers_are_placed_side_by_side_up_to_their_limit() -> None:
    found = _groups(_layout(8, ["0", "1"], {"a": {"num_gpus": 0.5, "max_workers": 2}, "b": {"max_workers": 1}}))
    assert [gpus for _, gpus, _ in found[1:]] == [["1", "1"], ["0"]]
    found = _groups(_layout(8, ["0"], {"a": {"max_workers": 4}}))
    assert [gpus for _, gpus, _ in found[1:]] == [["0"]], "a limit is no wish: no worker is without a GPU"


def test_a_pool_without_gpus_sees_none_and_shares_the_cores_with_decoders() -> None:
    found = _groups(_layout(9, ["0"], {"a": {}, "b": {"num_gpus": 0}}))
    assert found == [(["probe", "decode"], ["all"] * 4, 1), (["a"], ["0"], 1), (["b"], [""] * 4, 1)]
    found = _groups(_layout(9, ["0"], {"a": {}, "b": {"num_gpus": 0, "max_workers": 2}}))
    assert [len(gpus) for _, gpus, _ in found] == [6, 1, 2]
    found = _groups(_layout(4, ["0"], {"a": {"num_gpus": 0}}))
    assert found == [(["probe", "decode", "a"], [""] * 4, 1)]


def test_more_gpus_than_there_are_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"compute\.pools: a: 2 GPUs for a worker; this machine has 1 for all"):
        _layout(4, ["0"], {"a": {"num_gpus": 2}})
    with pytest.raises(ConfigError, match=r"compute\.pools: a: 1 GPUs, b: 0.125 GPUs for a worker; this machine has 1"):
        _layout(4, ["0"], {"a": {"num_gpus": 1}, "b": {}})
    with pytest.raises(ConfigError, match=r"compute\.pools\.a\.num_gpus: 1; this machine has no GPU"):
        _layout(4, [], {"a": {"num_gpus": 1}})


def test_without_gpus_each_core_maps_everything() -> None:
    found = _groups(_layout(3, [], {"a": {}, "b": {"max_workers": 2}}, shares_gpus=False))
    assert found == [(["probe", "decode", "a", "b"], ["all"] * 2, 1)]


def test_there_are_no_more_workers_than_memory_has_room_for() -> None:
    """A gibibyte for each that decodes, four for each that encodes too."""
    assert _layout(64, [], {"a": {}}, shares_gpus=False, memory=20 << 30).workers == 5
    assert _layout(64, [], {"a": {}}, shares_gpus=False, memory=1 << 20).workers == 1
    assert [len(gpus) for _, gpus, _ in _groups(_layout(64, ["0"], {"a": {}}, memory=20 << 30))] == [16, 1]
    of_three = _groups(_layout(64, ["0"], {"a": {}, "b": {"num_gpus": 0}}, memory=20 << 30))
    assert [len(gpus) for _, gpus, _ in of_three] == [8, 1, 2]


def test_this_machine_is_what_its_config_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "visible_gpus", lambda: ["3"])
    assert Machine.here(ComputeConfig(num_cpus=5)).cpus == 5
    found = Machine.here(ComputeConfig())
    assert (found.cpus, found.gpus) == (available_cpus(), ("3",))
    assert found.memory_bytes == available_memory()


def test_the_last_blocks_are_divided_among_the_workers() -> None:
    """Each gets its share of what is left: of 100 rows for three workers 34 at first, and never less than eight."""
    queue = BlockQueue([("u", 0, 1)], [None, None], workers=3)
    assert queue.take(range(2)) is not None
    queue.put(1, pa.table({"n": range(60)}))
    queue.put(1, pa.table({"n": range(60, 100)}))
    taken = []
    while any(queue.waiting):
        found = queue.take(range(2))
        assert found is not None
        taken.append(found[1]["n"].to_pylist())
    assert len(taken[0]) == 34
    assert len(taken) > 4
    assert all(8 <= len(rows) <= 34 for rows in taken)
    assert sorted(n for rows in taken for n in rows) == list(range(100))


def test_a_block_is_whole_while_there_are_more() -> None:
    queue = BlockQueue([("u", 0, 1), ("u", 1, 1)], [None, None], workers=3)
    assert queue.take(range(2)) is not None
    queue.put(1, pa.table({"n": range(60)}))
    found = queue.take(range(2))
    assert found is not None
    assert len(found[1]) == 60


def test_who_makes_blocks_waits_while_enough_wait() -> None:
    """Before a block is taken, and before each part of one is put."""
    block = pa.table({"n": [1]})
    queue = BlockQueue([("u", i, 1) for i in range(9)], [None, None, 1])
    assert queue.take(range(2)) is not None
    queue.put(1, block)
    queue.put(1, block)
    assert queue.take(range(2)) == (1, block)
    done = list[str]()

    def put() -> None:
        for number in range(3):
            queue.put(2, block)
            done.append(f"put {number}")

    def take() -> None:
        assert queue.take(range(2)) == (1, block)
        done.append("taken")

    threads = [threading.Thread(target=work, daemon=True) for work in (put, take)]
    threads[0].start()
    _until(lambda: done == ["put 0"])
    threads[1].start()
    time.sleep(0.2)
    assert done == ["put 0"], "both wait"
    for _ in range(3):
        assert queue.take(range(2, 3)) == (2, block)
    for thread in threads:
        thread.join(10)
    assert sorted(done) == ["put 0", "put 1", "put 2", "taken"]


def test_who_waits_for_room_is_told_that_the_run_is_over() -> None:
    block = pa.table({"n": [1]})
    queue = BlockQueue([("u", 0, 1)], [None, 1])
    queue.put(1, block)
    threading.Timer(0.2, queue.fail, [ValueError("first")]).start()
    with pytest.raises(TesseraError, match="the run is over"):
        queue.put(1, block)
    with pytest.raises(ValueError, match="first"):
        queue.wait()


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Unloadable:
    """Takes a while, and fails."""

    def __init__(self) -> None:
        self.tried = 0

    def setup(self) -> None:
        self.tried += 1
        time.sleep(0.2)
        raise ValueError("no weights")

    def __call__(self, table: pa.Table) -> pa.Table:
        raise AssertionError


def test_a_stage_that_cannot_be_set_up_is_tried_once() -> None:
    """Whatever the number of threads of its worker."""
    spec = StageSpec("a", Stage("a"), "a")
    group = WorkerGroup(range(1, 2), ({},), concurrency=3)
    queue = BlockQueue([("u", 0, 1)], [None, 6])
    worker = LocalWorker(Layout(((spec,), (spec,)), (group,)), group, {}, queue, Any, None)  # type: ignore[arg-type]
    stage = Unloadable()
    worker.stages[1] = [stage]
    worker.start()
    with pytest.raises(ValueError, match="no weights"):
        queue.wait()
    for thread in worker.threads:
        thread.join(10)
    assert stage.tried == 1


def test_a_run_beside_gpus_in_name_only(
    prepare: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "visible_gpus", lambda: ["0", "1"])
    monkeypatch.setattr(pipeline, "EncodeStage", SlowEncode)
    (tmp_path / "in").mkdir()
    for i in range(60):
        Image.new("RGB", (40, 30), (i, 0, 0)).save(tmp_path / "in" / f"{i:02d}.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    pools = {"default": {}, "b": {"num_gpus": 0.5, "max_actors": 1}}
    features = {"one": IMAGE, "other": {**IMAGE, "pool": "b"}}
    asked = config(tmp_path / "in", features, compute={"block_rows": 5, "num_cpus": 2, "pools": pools})
    report = run.extract(prepare(asked, False, None, "local"), show_progress=False)
    assert (report["rows_written"], report["rows_failed"]) == (60, 1)
    assert report["devices"] == {"nodes": 1, "cpus": 2, "gpus": 2}
    table = dataset.open(str(tmp_path / "out")).to_arrow().sort_by("sample_id")
    assert table["one_tokens"].null_count == table["other_tokens"].null_count == 0
    assert [row[0][0] for row in table["one_tokens"].to_pylist()] == pytest.approx(
        [i / 255 for i in range(60)], abs=1e-3
    )
    of_one, of_other = sorted(seen(tmp_path, "one")), sorted(seen(tmp_path, "other"))
    assert {gpus for _, gpus in of_one} <= {"0", "1"}
    assert len(of_other) == 1
    assert max(most for most, _ in [*of_one, *of_other]) in (2, 3), "several blocks are in flight in a process"
