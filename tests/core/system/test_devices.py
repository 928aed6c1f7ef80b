"""GPUs that a process may use, by their device files and ``CUDA_VISIBLE_DEVICES``."""

from __future__ import annotations

import glob
from pathlib import Path

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


def test_names_are_those_of_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = []
    for number, model in enumerate(("NVIDIA H100 80GB HBM3", "NVIDIA L4", "NVIDIA L4")):
        paths.append(str(tmp_path / f"{number}"))
        Path(paths[-1]).write_text(f"Model: \t\t {model}\nIRQ: 5\n")
    monkeypatch.setattr(glob, "glob", lambda pattern: [*paths, str(tmp_path / "gone")])
    assert devices.gpu_names(["0", "2"]) == ["NVIDIA H100 80GB HBM3", "NVIDIA L4"]
    assert devices.gpu_names(["1", "2"]) == ["NVIDIA L4"]
    assert devices.gpu_names(["GPU-a"]) == ["NVIDIA H100 80GB HBM3", "NVIDIA L4"]
    assert devices.gpu_names([]) == []
    monkeypatch.setattr(glob, "glob", lambda pattern: [])
    assert devices.gpu_names(["0"]) == []
