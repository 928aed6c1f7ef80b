"""Micro-batches: every row in one of them, none beyond its limits."""

from __future__ import annotations

import itertools
import os
import random
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.checkpoint.checkpoint import Checkpoint
from pipeline.core.errors import ConfigError
from pipeline.encoders._shared.compiled import compile_layers
from pipeline.encoders._shared.microbatches import limit_padding, microbatches
from pipeline.encoders.ast import AstConfig, AstEncoder
from pipeline.encoders.bert import BertConfig, BertEncoder
from pipeline.encoders.clap import ClapConfig, ClapEncoder
from pipeline.encoders.clip import ClipConfig, ClipEncoder
from pipeline.encoders.embedding_gemma2 import EmbeddingGemma2Config, EmbeddingGemma2Encoder
from pipeline.encoders.siglip import SiglipConfig, SiglipEncoder
from pipeline.encoders.videomae import VideoMaeConfig, VideoMaeEncoder
from pipeline.encoders.vit import VitConfig, VitEncoder
from pipeline.encoders.vjepa2 import VJepa2Config, VJepa2Encoder
from pipeline.encoders.wav2vec2 import Wav2Vec2Config, Wav2Vec2Encoder
from pipeline.encoders.whisper import WhisperConfig, WhisperEncoder
from pipeline.tokenizers.text import TextTokenizerConfig
from tests.encoders.sound_fixtures import assert_close, build_encoder, checkpoint, texts, token_inputs


@pytest.mark.parametrize("seed", range(20))
def test_passes_hold_every_item_once_and_keep_both_limits(seed: int) -> None:
    draw = random.Random(seed)
    lengths = [draw.choice([0, 1, 5, 60, 500]) for _ in range(draw.randint(0, 40))]
    count, most = draw.randint(1, 8), draw.choice([None, 1, 64, 1000])
    groups = microbatches(lengths, count, most)
    assert [i for group in groups for i in group] == list(range(len(lengths)))
    for group in groups:
        assert 1 <= len(group) <= count
        assert len(group) == 1 or most is None or len(group) * max(lengths[i] for i in group) <= most
    for before, after in itertools.pairwise(groups):
        joined = [*before, after[0]]
        full = len(joined) > count
        assert full or (most is not None and len(joined) * max(lengths[i] for i in joined) > most)


def test_passes_by_hand() -> None:
    assert microbatches([], 4, None) == []
    assert microbatches([1, 1, 1], 2, None) == [range(2), range(2, 3)]
    assert microbatches([2, 3, 4, 9], 32, 8) == [range(2), range(2, 3), range(3, 4)]


def test_a_budget_of_tokens_bounds_every_forward_pass_and_changes_no_value(data: Path, monkeypatch: Any) -> None:
    rows = token_inputs(texts(data), checkpoint("bert"))
    whole = build_encoder(BertEncoder, BertConfig, checkpoint("bert"), "text").encode(rows, True)
    small = build_encoder(BertEncoder, BertConfig, checkpoint("bert"), "text", batch_tokens=100)
    shapes = []
    forward = small.model.forward
    monkeypatch.setattr(
        small.model, "forward", lambda **inputs: (shapes.append(inputs["input_ids"].shape), forward(**inputs))[1]
    )
    for a, b in zip(whole, small.encode(rows, True), strict=True):
        assert_close(a.pooled, b.pooled, "pooled")
        assert_close(a.tokens, b.tokens, "tokens")
    assert sum(count for count, _ in shapes) == len(rows)
    assert all(count == 1 or count * length <= 100 for count, length in shapes)
    assert any(count > 1 for count, _ in shapes)


@pytest.mark.parametrize(
    ("lengths", "enough", "expected"),
    [
        ([10] * 8, 20, 8),  # nothing is padded
        ([10, 10, 10, 40], 20, 3),  # 90 of 160 would be padding
        ([10, 10, 10, 40], 31, 4),  # but fewer are not enough
        ([100, 101, 102, 103, 104, 105], 0, 6),  # 2.4 %
        ([100, 104, 108, 112, 116, 120, 124], 0, 3),  # 3.7 % of three, 5.4 % of four
        ([7], 0, 1),
    ],
)
def test_a_pass_is_cut_where_more_than_a_twentieth_would_be_padding(
    lengths: list[int], enough: int, expected: int
) -> None:
    assert limit_padding(lengths, range(len(lengths)), enough) == range(expected)
    assert limit_padding([1, 2, *lengths], range(2, 2 + len(lengths)), enough) == range(2, 2 + expected)


def test_texts_are_padded_little_on_a_cpu(data: Path) -> None:
    encoder = build_encoder(BertEncoder, BertConfig, checkpoint("bert"), "text")
    rows = token_inputs([" ".join(["word"] * (1 + 3 * i)) for i in range(32)], checkpoint("bert"))
    padded: list[int] = []
    forward = encoder.forward
    encoder.forward = lambda some, want: (
        padded.append(len(some) * len(some[-1].inputs["input_ids"])) or forward(some, want)
    )
    encoder.encode(rows, False)
    words = sum(len(row.inputs["input_ids"]) for row in rows)
    assert words < sum(padded) < 1.25 * words  # in one pass: 1.94


KINDS = {
    "ast": (AstEncoder, AstConfig),
    "bert": (BertEncoder, BertConfig),
    "clap": (ClapEncoder, ClapConfig),
    "clip": (ClipEncoder, ClipConfig),
    "embedding_gemma2": (EmbeddingGemma2Encoder, EmbeddingGemma2Config),
    "siglip": (SiglipEncoder, SiglipConfig),
    "videomae": (VideoMaeEncoder, VideoMaeConfig),
    "vit": (VitEncoder, VitConfig),
    "vjepa2": (VJepa2Encoder, VJepa2Config),
    "wav2vec2": (Wav2Vec2Encoder, Wav2Vec2Config),
    "whisper": (WhisperEncoder, WhisperConfig),
}


@pytest.mark.parametrize("kind", KINDS)
def test_encoders_of_other_arithmetic_share_no_model(kind: str) -> None:
    """Those of one process share one by their key."""
    encoder_class, config_class = KINDS[kind]
    keys = set()
    for options in ({}, {"compile": True}, {"dtype": "bfloat16"}, {"checkpoint": "other"}):
        config = config_class(kind=kind, **{"checkpoint": "one", **options})
        encoder = encoder_class(config, Checkpoint(config.checkpoint, kind, None, "x"), "text", None)
        encoder.device = torch.device("cpu")
        keys.add(encoder.load_key())
    assert len(keys) == 4


def test_compiled_layers_are_of_a_cuda_device() -> None:
    where = checkpoint("bert")
    for device in ("auto", "cpu"):
        config = BertConfig(kind="bert", checkpoint=where.path, device=device, compile=True)
        with pytest.raises(
            ConfigError, match=rf"features\.x\.encoder\.compile: true with device: {device}; device: cuda"
        ):
            BertEncoder(config, where, "text", TextTokenizerConfig(kind="text")).check("features.x")


def test_while_a_shape_is_compiled_no_other_pass_is_at_work(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second pass of the same shape is."""
    encoder = build_encoder(BertEncoder, BertConfig, checkpoint("bert"), "text", batch_size=4)
    encoder.config = encoder.config.model_copy(update={"compile": True})
    rows = token_inputs(["a small dog"] * 8, checkpoint("bert"))
    inside, found, lock = [0], [], threading.Lock()
    forward = encoder.forward

    def slow(some: Any, want_tokens: bool) -> Any:
        with lock:
            inside[0] += 1
            found.append(inside[0])
        time.sleep(0.1)
        done = forward(some, want_tokens)
        with lock:
            inside[0] -= 1
        return done

    monkeypatch.setattr(encoder, "forward", slow)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda some: encoder.encode(some, False), [rows[:4], rows[:3]]))
    assert found == [1, 1]
    found.clear()
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda some: encoder.encode(some, False), [rows[:4], rows[:3]]))
    assert sorted(found) == [1, 2]


def test_compiled_code_is_not_taken_from_a_folder_that_others_may_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch's own default is ``torchinductor_<user>`` in the system's temporary folder."""
    asked: list[str] = []

    def compile(function: Any) -> Any:
        asked.append(os.environ["TORCHINDUCTOR_CACHE_DIR"])
        return function

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for home, writable in ((tmp_path / "a", True), (tmp_path / "b", False)):
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "x")
        monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
        monkeypatch.setenv("XDG_CACHE_HOME", str(home))
        if not writable:  # others may write there
            (home / "tessera" / "torchinductor").mkdir(parents=True)
            (home / "tessera" / "torchinductor").chmod(0o777)
        compile_layers(torch.nn.Linear(1, 1), torch.device("cpu"), "x.checkpoint")
        folder = Path(asked[-1])
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert (folder == home / "tessera" / "torchinductor") is writable
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "theirs")
    compile_layers(torch.nn.Linear(1, 1), torch.device("cpu"), "x.checkpoint")
    assert asked[-1] == "theirs"
