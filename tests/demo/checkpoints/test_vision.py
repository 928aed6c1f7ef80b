"""The small vision checkpoints: true architectures that transformers' Auto classes load, the same every time."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest

from pipeline.checkpoint.checkpoint import resolve
from pipeline.demo.checkpoints.vision import WRITERS

MODELS = {
    "vit": "ViTModel",
    "dinov2": "Dinov2Model",
    "dinov2_with_registers": "Dinov2WithRegistersModel",
    "dinov3": "DINOv3ViTModel",
    "clip": "CLIPModel",
    "siglip": "SiglipModel",
    "siglip2": "Siglip2Model",
    "videomae": "VideoMAEModel",
    "vjepa2": "VJEPA2Model",
}


def written(name: str, folder: Path) -> Path:
    folder.mkdir()
    WRITERS[name](str(folder))
    return folder


def test_every_architecture_has_a_writer() -> None:
    assert set(WRITERS) == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_it_loads_whole_and_is_small(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer, AutoVideoProcessor

    folder = written(name, tmp_path / name)
    assert capfd.readouterr().err == ""  # a demo's terminal is not for progress bars
    resolve(str(folder), None, "checkpoint")
    model, info = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert type(model).__name__ == MODELS[name]
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    (AutoVideoProcessor if name in ("videomae", "vjepa2") else AutoImageProcessor).from_pretrained(folder)
    if name in ("clip", "siglip", "siglip2"):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert tokenizer.is_fast
        ids = tokenizer("a red circle moves left")["input_ids"]
        assert max(ids) < model.config.text_config.vocab_size
        assert "a red circle moves left" in tokenizer.decode(ids, skip_special_tokens=True)
        assert tokenizer.unk_token_id not in ids[:-1]
    assert sum(file.stat().st_size for file in folder.iterdir()) < 1_000_000


@pytest.mark.parametrize("name", MODELS)
def test_it_comes_out_the_same_every_time(name: str, tmp_path: Path) -> None:
    def digests(folder: Path) -> dict[str, str]:
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}

    assert digests(written(name, tmp_path / "one")) == digests(written(name, tmp_path / "two"))


def test_writing_leaves_the_random_state_and_the_log_level_alone(tmp_path: Path) -> None:
    import torch
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    written("vit", tmp_path / "vit")
    assert torch.equal(torch.rand(3), expected)
    assert transformers_logging.get_verbosity() == level
    assert level <= logging.ERROR
