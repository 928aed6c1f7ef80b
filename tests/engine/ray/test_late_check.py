"""A node that joins during a run is checked by each worker that starts there."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.core.errors import ConfigError
from pipeline.engine.ray.late_check import LateCheck


class Task:
    """A check that finds a problem, and records the GPUs that it is asked for."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    def problem(self, gpus: float) -> tuple[str, str, str] | None:
        self.asked.append(gpus)
        return "features.i.encoder.checkpoint", "'/m/clip' holds other files than on the driver", "the same files"


def test_only_nodes_that_were_not_checked(ray_session: Any) -> None:
    here = ray_session.get_runtime_context().get_node_id()
    task: Any = Task()
    LateCheck(task, frozenset([here])).check_this_node()
    assert task.asked == []
    with pytest.raises(ConfigError, match=r"checkpoint: node .*, which joined during the run: '/m/clip' holds other"):
        LateCheck(task, frozenset(["another"])).check_this_node()
    assert task.asked == [0.0]
