"""Which engine a config gets, and why."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline import engine as engines
from pipeline.config.models import ComputeConfig, EngineConfig


@pytest.mark.parametrize(
    ("kind", "address", "variable", "gpus", "wants_gpu", "expected"),
    [
        ("auto", None, None, 0, True, ("local", "one machine without GPUs")),
        ("auto", None, None, 2, False, ("local", "one machine without GPUs")),
        ("auto", None, None, 1, True, ("ray", "a GPU is visible")),
        ("auto", None, None, 2, True, ("ray", "2 GPUs are visible")),
        ("auto", "auto", None, 0, False, ("ray", "compute.address is set")),
        ("auto", None, "10.0.0.1:6379", 0, False, ("ray", "RAY_ADDRESS is set")),
        ("local", None, "10.0.0.1:6379", 2, True, ("local", "by name")),
        ("ray", None, None, 0, False, ("ray", "by name")),
        ("inline", "auto", None, 0, False, ("inline", "by name")),
    ],
)
def test_the_engine_of_a_config(
    monkeypatch: pytest.MonkeyPatch,
    kind: Any,
    address: str | None,
    variable: str | None,
    gpus: int,
    wants_gpu: bool,
    expected: tuple[str, str],
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if variable is not None:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    monkeypatch.setattr(engines, "visible_gpus", lambda: [str(number) for number in range(gpus)])
    assert engines.choose(EngineConfig(kind=kind), ComputeConfig(address=address), wants_gpu) == expected
