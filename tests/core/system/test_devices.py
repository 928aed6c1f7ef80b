"""GPUs that a process may use, by their device files and ``CUDA_VISIBLE_DEVICES``."""

from __future__ import annotations

import glob

import pytest

from pipeline.core.system import devices


@pytest.mark.parametrize(
    ("there", "visible", "expected"),
    [
        (0, None, []),
        (2, None, ["0", "1"]),
        (2, "1", ["1"]),
        (2, "", []),
        (2, "-1", []),
        (4, "GPU-a,GPU-b", ["GPU-a", "GPU-b"]),
        (0, "0", []),
        (2, "0,1,2", ["0", "1"]),
        (2, "0,-1,1", ["0"]),
        (1, "MIG-a, MIG-b", ["MIG-a", "MIG-b"]),
    ],
)
def test_visible_gpus(monkeypatch: pytest.MonkeyPatch, there: int, visible: str | None, expected: list[str]) -> None:
    monkeypatch.setattr(glob, "glob", lambda pattern: [f"/dev/nvidia{i}" for i in range(there)])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert devices.visible_gpus() == expected
