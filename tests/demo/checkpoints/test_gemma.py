"""The small EmbeddingGemma 2 loads as the true one does, and is the same in every run."""

from __future__ import annotations

from pathlib import Path

from pipeline.checkpoint.checkpoint import resolve
from pipeline.demo.checkpoints.gemma import WRITERS


def test_the_auto_classes_load_it(tmp_path: Path) -> None:
    from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoModel, AutoProcessor, AutoVideoProcessor

    WRITERS["embedding_gemma2"](str(tmp_path))
    resolve(str(tmp_path), None, "x")
    assert type(AutoProcessor.from_pretrained(tmp_path)).__name__ == "EmbeddingGemma2Processor"
    assert AutoImageProcessor.from_pretrained(tmp_path).max_soft_tokens == 140
    assert AutoVideoProcessor.from_pretrained(tmp_path).max_soft_tokens == 70
    assert AutoFeatureExtractor.from_pretrained(tmp_path).sampling_rate == 16000
    model, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert type(model).__name__ == "EmbeddingGemma2Model"
    assert not info["missing_keys"]
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 1_500_000


def test_its_tokenizer_spells_any_text(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    WRITERS["embedding_gemma2"](str(tmp_path))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("a red circle moves left", "Zürich 東京 🎬", "two  spaces, a\ttab and\na line"):
        ids = tokenizer(text)["input_ids"]
        assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer.tokenize("a red circle") == ["a", "▁red", "▁circle"]
    assert len(tokenizer("<|image|>", add_special_tokens=False)["input_ids"]) == 1
    assert len(tokenizer("<|video|>", add_special_tokens=False)["input_ids"]) == 1


def test_it_is_the_same_in_every_run(tmp_path: Path) -> None:
    import torch

    folders = [tmp_path / "a", tmp_path / "b"]
    for seed, folder in enumerate(folders):
        folder.mkdir()
        torch.manual_seed(seed)
        WRITERS["embedding_gemma2"](str(folder))
    first, second = (resolve(str(folder), None, "x") for folder in folders)
    assert first.weights_sha256() == second.weights_sha256()
    assert first.preprocessing_sha256() == second.preprocessing_sha256()
