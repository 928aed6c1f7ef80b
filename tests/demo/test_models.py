"""The demo checkpoints: safetensors, loadable by the Auto classes, the same bytes each time."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModel

from pipeline.checkpoint import resolve
from pipeline.demo import models as demo


@pytest.mark.parametrize("name", demo.CHECKPOINTS)
def test_every_checkpoint_is_a_true_architecture(models: Path, name: str) -> None:
    found = resolve(str(models / name), None, "x")
    assert AutoConfig.from_pretrained(found.path).model_type == found.model_type
    model = AutoModel.from_pretrained(found.path, use_safetensors=True)
    assert sum(p.numel() for p in model.parameters()) < 2_000_000


def test_the_same_weights_each_time(models: Path, tmp_path: Path) -> None:
    demo.CHECKPOINTS["vit"](str(tmp_path))
    assert (tmp_path / "model.safetensors").read_bytes() == (models / "vit" / "model.safetensors").read_bytes()
