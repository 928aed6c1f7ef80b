"""Which stages run where, for hosts with and without GPUs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline import run
from pipeline.config.bound import BoundConfig
from pipeline.config.features import bind
from pipeline.run.pipeline import pipeline_spec, wants_gpu
from tests.stages.media_fixtures import IMAGE, config


def bound(tmp_path: Path, **more: Any) -> BoundConfig:
    (tmp_path / "in").mkdir(exist_ok=True)
    features = more.pop("features", {"i": IMAGE})
    settings = config(tmp_path / "in", features, **more)
    return BoundConfig(settings, bind(settings))


def placed(one: BoundConfig, on_gpu: bool) -> list[tuple[str, str, str]]:
    spec = pipeline_spec(one, None, "r", str(one.config.output.path), on_gpu)
    return [(row["stage"], row["workers"], row["kind"]) for row in spec.rows()]


def test_without_a_gpu_decoding_runs_in_the_first_pool(tmp_path: Path) -> None:
    assert placed(bound(tmp_path), on_gpu=False) == [
        ("read", "probe", "tasks"),
        ("probe", "probe", "tasks"),
        ("decode", "default", "pool"),
        ("encode", "default", "pool"),
    ]


def test_with_a_gpu_decoding_has_workers_of_its_own(tmp_path: Path) -> None:
    pools = {"default": {"num_gpus": 0.5}, "b": {"num_gpus": 0.25, "max_actors": 2}}
    one = bound(tmp_path, features={"i": IMAGE, "j": {**IMAGE, "pool": "b"}}, compute={"pools": pools})
    assert placed(one, on_gpu=True)[2:] == [
        ("decode", "decode", "tasks"),
        ("encode default", "default", "pool"),
        ("encode b", "b", "pool"),
    ]
    spec = pipeline_spec(one, None, "r", "out", True)
    assert (spec.workers["decode"].num_cpus, spec.workers["b"].num_gpus, spec.workers["b"].max_workers) == (1, 0.25, 2)
    assert {spec.workers[name].concurrent_blocks for name in ("default", "b")} == {3}
    beside = bound(
        tmp_path, features={"i": IMAGE, "j": {**IMAGE, "pool": "b"}}, compute={"pools": {**pools, "b": {"num_gpus": 0}}}
    )
    spec = pipeline_spec(beside, None, "r", "out", True)
    assert [spec.workers[name].concurrent_blocks for name in ("default", "b")] == [3, 1]
    assert wants_gpu(one.config)
    assert not wants_gpu(bound(tmp_path).config)


def test_stages_are_sandboxed_unless_the_config_says_no(tmp_path: Path) -> None:
    def sandboxed(one: BoundConfig) -> list[str]:
        return [row["stage"] for row in pipeline_spec(one, None, "r", "out", False).rows() if row["sandbox"]]

    assert sandboxed(bound(tmp_path)) == ["probe", "decode"]
    assert sandboxed(bound(tmp_path, decoders={"limits": {"isolate": False}})) == []


def test_the_plan_has_it_without_starting_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("pipeline.engine.build", None)
    one = bound(tmp_path)
    one = BoundConfig(
        one.config.model_copy(update={"output": one.config.output.model_copy(update={"version": "v1"})}), one.features
    )
    (tmp_path / "in" / "a.txt").write_text("a")
    stages = [row["stage"] for row in run.planned_spec(one, run.plan(one)).rows()]
    assert stages == ["read", "probe", "decode", "encode"]
