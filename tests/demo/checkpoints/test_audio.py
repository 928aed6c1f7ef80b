"""The small audio checkpoints load as any true one does, and are the same in every run."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.checkpoint.checkpoint import resolve
from pipeline.demo.checkpoints.audio import WRITERS


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_the_auto_classes_load_it(name: str, tmp_path: Path) -> None:
    from transformers import AutoFeatureExtractor, AutoModel, AutoTokenizer

    WRITERS[name](str(tmp_path))
    resolve(str(tmp_path), None, "x")
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert extractor.sampling_rate == (48000 if name.startswith("clap") else 16000)
    if name.startswith("clap"):
        assert AutoTokenizer.from_pretrained(tmp_path).is_fast
    _, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 1_000_000


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_it_is_the_same_in_every_run(name: str, tmp_path: Path) -> None:
    import torch

    folders = [tmp_path / "a", tmp_path / "b"]
    for seed, folder in enumerate(folders):
        folder.mkdir()
        torch.manual_seed(seed)
        WRITERS[name](str(folder))
    first, second = (resolve(str(folder), None, "x") for folder in folders)
    assert first.weights_sha256() == second.weights_sha256()
    assert first.preprocessing_sha256() == second.preprocessing_sha256()
