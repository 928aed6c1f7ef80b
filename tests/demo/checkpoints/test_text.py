"""The small text checkpoints load as any true one does, and are the same in every run."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.checkpoint.checkpoint import resolve
from pipeline.demo.checkpoints.text import WRITERS


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_the_auto_classes_load_it(name: str, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    WRITERS[name](str(tmp_path))
    found = resolve(str(tmp_path), None, "x")
    assert found.model_type.replace("-", "_") == name
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.is_fast
    assert tokenizer.pad_token_id == AutoConfig.from_pretrained(tmp_path).pad_token_id
    assert tokenizer.unk_token_id not in tokenizer("The red circle moves LEFT: 3.5 km, isn't it?")["input_ids"]
    _, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 1_000_000


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_it_is_the_same_in_every_run(name: str, tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        WRITERS[name](str(folder))
    first, second = (resolve(str(folder), None, "x") for folder in folders)
    assert first.weights_sha256() == second.weights_sha256()
    assert first.preprocessing_sha256() == second.preprocessing_sha256()


def test_byte_level_tokenizers_spell_any_script(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    WRITERS["roberta"](str(tmp_path))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    text = "日本語 தமிழ் ünïcode 🦜"
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
