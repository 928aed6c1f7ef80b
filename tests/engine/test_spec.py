"""A pipeline as data: which stages share workers, and what ``--plan`` prints of them."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.decoders.limits import LimitsConfig
from pipeline.engine.spec import PipelineSpec, SinkSpec, StageSpec, WorkersSpec

SINK = SinkSpec(lambda name: None, "r", 1)  # type: ignore[arg-type, return-value]


def spec(*stages: tuple[str, str], workers: dict[str, WorkersSpec]) -> PipelineSpec:
    return PipelineSpec(tuple(StageSpec(name, None, of) for name, of in stages), workers, SINK, 32)


def test_consecutive_stages_of_the_same_workers_are_one_step() -> None:
    workers = {"a": WorkersSpec("tasks", 0.05), "b": WorkersSpec("pool")}
    made = spec(("read", "a"), ("probe", "a"), ("decode", "b"), ("encode", "b"), workers=workers)
    assert [(step.name, [stage.name for stage in step.stages]) for step in made.steps] == [
        ("a", ["read", "probe"]),
        ("b", ["decode", "encode"]),
    ]
    assert [step.workers for step in made.steps] == list(workers.values())


@pytest.mark.parametrize(
    ("stages", "names"),
    [
        ([("read", "a"), ("decode", "b")], ["a"]),
        ([("read", "a")], ["a", "b"]),
        ([("read", "a"), ("decode", "b"), ("encode", "a")], ["a", "b"]),
    ],
    ids=["no workers", "no stage", "entered again"],
)
def test_stages_and_workers_belong_together(stages: list[tuple[str, str]], names: list[str]) -> None:
    with pytest.raises(ValueError, match="stages run in"):
        spec(*stages, workers={name: WorkersSpec("pool") for name in names})


def test_its_rows_are_plain_values() -> None:
    limits = LimitsConfig()
    stages = (
        StageSpec("probe", None, "a", limits=limits, block_rows=7),
        StageSpec("encode", None, "b"),
    )
    workers = {"a": WorkersSpec("tasks", 0.05), "b": WorkersSpec("pool", 1.0, 0.5, 1, 4)}
    first, second = PipelineSpec(stages, workers, SINK, 32).rows()
    common: dict[str, Any] = {"cpus": 0.05, "gpus": None, "min_workers": None, "max_workers": None}
    assert first == {
        "stage": "probe",
        "workers": "a",
        "kind": "tasks",
        "block_rows": 7,
        **common,
        "sandbox": limits.model_dump(mode="json"),
    }
    assert second == {
        "stage": "encode",
        "workers": "b",
        "kind": "pool",
        "block_rows": 32,
        "cpus": 1.0,
        "gpus": 0.5,
        "min_workers": 1,
        "max_workers": 4,
        "sandbox": None,
    }
