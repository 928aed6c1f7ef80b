"""The BERT family equals its own tokenizer and model, one text at a time."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.errors import ConfigError
from pipeline.demo.checkpoints.text import WRITERS
from pipeline.encoders.bert import BertConfig, BertEncoder
from pipeline.tokenizers.audio_frame import AudioFrameConfig
from pipeline.tokenizers.text import TextTokenizerConfig
from tests.encoders.sound_fixtures import (
    assert_close,
    build_encoder,
    changed,
    checkpoint,
    copy,
    orders,
    texts,
    token_inputs,
)


@cache
def _loaded(name: str) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    path = checkpoint(name).path
    return AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path).eval()


def _reference(name: str, string: str) -> dict[str, Any]:
    """By `transformers` alone: one text, no padding."""
    import torch

    tokenizer, model = _loaded(name)
    encoded = tokenizer(string, truncation=True, max_length=512, return_tensors="pt", return_special_tokens_mask=True)
    special = encoded.pop("special_tokens_mask")[0].bool()
    with torch.inference_mode():
        output = model(**encoded)
    states = output.last_hidden_state[0]
    return {
        "tokens": states[~special],
        "prefix": states[:1],
        "ids": encoded["input_ids"][0][~special].numpy(),
        "mean": states.mean(0),
        "cls": states[0],
        "pooler": getattr(output, "pooler_output", None),
    }


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_tokens_and_mean_equal_the_reference(name: str, data: Path) -> None:
    strings = texts(data)
    references = [_reference(name, string) for string in strings]
    lengths = [len(reference["ids"]) for reference in references]
    assert min(lengths) == 1
    assert max(lengths) == 510
    encoder = build_encoder(BertEncoder, BertConfig, checkpoint(name), "text")
    for what, rows in orders(encoder, token_inputs(strings, checkpoint(name))):
        for row, reference in zip(rows, references, strict=True):
            assert_close(row.tokens, reference["tokens"], what)
            assert_close(row.prefix_tokens, reference["prefix"], what)
            assert_close(row.pooled, reference["mean"], what)
            assert row.token_ids.dtype == np.int32
            np.testing.assert_array_equal(row.token_ids, reference["ids"])
            assert row.grid == (len(reference["ids"]), 1, 1)
            assert row.times_s is None


@pytest.mark.parametrize(
    ("name", "pool"),
    [("bert", "cls"), ("bert", "pooler"), ("mpnet", "pooler"), ("roberta", "pooler"), ("electra", "cls")],
)
def test_other_pools(name: str, pool: str, data: Path) -> None:
    strings = texts(data)[2:5]
    encoder = build_encoder(BertEncoder, BertConfig, checkpoint(name), "text", pool=pool)
    for string, row in zip(strings, encoder.encode(token_inputs(strings, checkpoint(name)), False), strict=True):
        reference = _reference(name, string)[pool]
        assert_close(row.pooled, reference[0] if reference.ndim == 2 else reference, pool)
        assert row.tokens is None
        assert row.token_ids is None


def test_bfloat16_is_near_float32(data: Path) -> None:
    rows = token_inputs(texts(data), checkpoint("bert"))
    exact = build_encoder(BertEncoder, BertConfig, checkpoint("bert"), "text").encode(rows, True)
    rough = build_encoder(BertEncoder, BertConfig, checkpoint("bert"), "text", dtype="bfloat16").encode(rows, True)
    for a, b in zip(exact, rough, strict=True):
        assert b.tokens.dtype == b.pooled.dtype == np.float32
        assert 0 < np.abs(a.tokens - b.tokens).max() < 0.3


def test_spec_has_width_space_and_dtype() -> None:
    spec = build_encoder(BertEncoder, BertConfig, checkpoint("bert"), "text").spec()
    assert (spec.dim, spec.token_dim, spec.normalized, spec.native_dtype) == (48, 48, False, "float32")
    assert spec.space == f"bert:{checkpoint('bert').weights_sha256()[:12]}:mean"
    other = build_encoder(BertEncoder, BertConfig, checkpoint("bert"), "text", pool="cls").spec()
    assert other.space != spec.space


def _encoder(where: Any, tokenizer: Any = None, modality: Any = "text", **options: Any) -> BertEncoder:
    config = BertConfig(kind="bert", checkpoint=where.path, **options)
    return BertEncoder(config, where, modality, tokenizer or TextTokenizerConfig(kind="text"))


def test_config_errors_name_their_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"features\.x\.encoder\.checkpoint.*'whisper'"):
        _encoder(checkpoint("whisper")).check("features.x")
    with pytest.raises(ConfigError, match=r"features\.x\.tokenizer\.kind"):
        _encoder(checkpoint("bert"), AudioFrameConfig(kind="audio_frame")).check("features.x")
    with pytest.raises(ConfigError, match=r"features\.x\.modality"):
        _encoder(checkpoint("bert"), modality="audio").check("features.x")
    with pytest.raises(ConfigError, match=r"features\.x\.encoder\.pool.*distilbert"):
        _encoder(checkpoint("distilbert"), pool="pooler").check("features.x")
    with pytest.raises(ConfigError, match=r"encoder\.checkpoint.*no tokenizer files"):
        _encoder(copy("bert", tmp_path, without=["tokenizer.json"])).check("features.x")


def test_missing_weights_are_an_error_and_not_drawn_at_random(tmp_path: Path) -> None:
    deeper = changed("bert", tmp_path, "config.json", num_hidden_layers=3)
    with pytest.raises(ConfigError, match="weights are missing"):
        _encoder(deeper).setup()


def test_a_checkpoint_without_pooler_serves_the_other_pools(tmp_path: Path) -> None:
    from transformers import BertConfig as TransformersConfig
    from transformers import BertForMaskedLM

    masked = copy("bert", tmp_path, without=["model.safetensors", "config.json"])
    BertForMaskedLM(TransformersConfig.from_pretrained(checkpoint("bert").path)).save_pretrained(tmp_path)
    _encoder(masked, pool="mean").setup()
    with pytest.raises(ConfigError, match="pooler"):
        _encoder(masked, pool="pooler").setup()
