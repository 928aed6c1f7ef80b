"""RayEngine: what it has, and what it says of a cluster that does not answer."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config.models import ComputeConfig
from pipeline.core.errors import ConfigError
from pipeline.engine import build


def test_it_joins_the_ray_of_this_process(ray_session: Any) -> None:
    engine = build("ray", ComputeConfig())
    engine.check()
    assert engine.gpus(None) == 0
    assert engine.name == "ray"


def test_a_cluster_that_does_not_answer_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ConfigError, match=r"compute\.address: no Ray cluster answers at '127\.0\.0\.1:1'"):
        build("ray", ComputeConfig(address="127.0.0.1:1")).check()
