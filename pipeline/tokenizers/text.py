"""Text to token ids, through the checkpoint's own fast tokenizer; and long texts to windows that fit it."""

from __future__ import annotations

import json
import os
import re
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pipeline.checkpoint.checkpoint import Checkpoint, resolve, without_weights
from pipeline.checkpoint.files import bounded_memory
from pipeline.core.errors import ConfigError, SampleError, describe
from pipeline.core.media import Media, Modality, Text, TextRequest
from pipeline.tokenizers._shared.token_windows import Cutter
from pipeline.tokenizers.base import ModelInputs, missing

_CHARS_PER_TOKEN, _MARGIN_CHARS = 16, 4096
_SURROGATE = re.compile("[\ud800-\udfff]")
_MAX_GROWTH = 1000
_STEP_GROWTH = {"Precompiled": 18, "ByteLevel": 2, "BertNormalizer": 3}
"""Characters that a step makes of one, at most: forms of Unicode 18 of some, spaces around ideographs 3."""
_UNSET = 1_000_000_000
"""A tokenizer that knows no limit says 1e30."""
_POSITIONS_START_AFTER_PADDING = {
    *("roberta", "xlm-roberta", "camembert", "mpnet", "clap_text_model", "roberta-prelayernorm", "data2vec-text"),
    *("xlm-roberta-xl", "longformer", "xmod", "ibert"),
}
"""Model types that number positions from ``pad_token_id + 1`` on, so that many rows of the table are never used."""


class TextTokenizerConfig(BaseModel):
    """Token sequences of at most ``max_length`` tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["text"]
    max_length: int | None = Field(default=None, ge=1)
    """Tokens of one row, special tokens and prompt included. null: what the tokenizer and the model allow."""
    overflow: Literal["truncate", "windows"] = "truncate"
    """A longer text: its end is cut off, or it becomes several windows, each a row."""
    overlap: int = Field(default=0, ge=0)
    """Tokens that neighbouring windows share, about: windows begin and end at words."""
    prompt: str = ""
    """Put before every text, e.g. ``"query: "``."""
    checkpoint: str | None = None
    """Only for an encoder without a checkpoint (``raw``): a folder with a tokenizer, or a hub id."""
    revision: str | None = None
    """The commit of a hub id, 40 hex digits."""


class TextTokenizer:
    """Inputs: ``input_ids`` int32 [n] with special tokens, ``special_mask`` uint8 [n], 1 where special; unpadded."""

    modality: Modality = "text"

    def __init__(self, config: TextTokenizerConfig, checkpoint: Checkpoint | None) -> None:
        self.config = config
        self.checkpoint = checkpoint

    def check(self, where: str) -> None:
        if self.checkpoint is not None and self.config.checkpoint is not None:
            raise ConfigError(
                f"{where}.checkpoint", repr(self.config.checkpoint), "leave it out: the encoder has its own tokenizer"
            )
        if self.config.overlap and self.config.overflow != "windows":
            raise ConfigError(f"{where}.overlap", str(self.config.overlap), "only with overflow: windows")
        self.setup(where)
        if self.config.max_length is not None and self.limit is not None and self.config.max_length > self.limit:
            raise ConfigError(
                f"{where}.max_length", str(self.config.max_length), f"the model has {self.limit} positions"
            )
        if self.max_length is None:
            if self.config.overflow == "windows":
                raise ConfigError(f"{where}.max_length", "not given, and the model has no limit", "give one")
            return
        fixed = self._count("")
        room = self.max_length - fixed
        if room < 1:
            raise ConfigError(
                f"{where}.max_length",
                str(self.max_length),
                f"more than {fixed}: special tokens and prompt alone take so many",
            )
        if self.config.overlap >= room:
            raise ConfigError(f"{where}.overlap", str(self.config.overlap), f"less than {room}, a window's own tokens")

    def request(self) -> TextRequest:
        return TextRequest()

    def setup(self, where: str = "tokenizer") -> None:
        """``where``: the tokenizer's path in the config, for errors."""
        found = self._found(where)
        # Truncation is a state of the tokenizers library's object: one object for each use, so that threads may share.
        self._cutting, self._whole = _load(found), _load(found)
        self.limit = _positions(found)
        self.max_length = self.config.max_length or _least(self._whole.model_max_length, self.limit)
        self._encode("a", truncated=True)

    def tokenize(self, media: Media) -> ModelInputs:
        assert isinstance(media, Text)
        if media.text.isspace():  # some tokenizers have tokens for it
            raise SampleError("empty", "no words in it")
        encoded = self._encode(media.text, truncated=True)
        special = np.asarray(encoded["special_tokens_mask"], np.uint8)
        ends = np.asarray(encoded["offset_mapping"], np.int64).reshape(-1, 2)[:, 1]
        if not np.any((special == 0) & (ends > len(self.config.prompt))):
            raise SampleError("empty", f"the tokenizer finds no token in {len(media.text)} characters")
        return ModelInputs({"input_ids": np.asarray(encoded["input_ids"], np.int32), "special_mask": special})

    def cut(self, text: str) -> list[tuple[int, int]]:
        """Spans of characters ``[start, end)`` of the token windows of ``text``.

        Each span, tokenized alone, fits ``max_length``; together they hold every character that is no
        space, in order. They begin and end at words, but inside a word that is too long for a window.
        A single character of more tokens than a window has room for is a span by itself. A text of nothing but white
        space is one span, which `tokenize` refuses as ``empty``.
        """
        if self.max_length is None or text.isspace() or self._fits(text):
            return [(0, len(text))]
        encoded, before = self._encode(text, truncated=False), len(self.config.prompt)
        tokens = [
            (start - before, end - before)
            for (start, end), special in zip(encoded["offset_mapping"], encoded["special_tokens_mask"], strict=True)
            if not special and end > before
        ]
        return Cutter(text, tokens, self.max_length - self._count(""), self.config.overlap, self._fits).spans()

    def _found(self, where: str) -> Checkpoint:
        if self.checkpoint is not None:
            return self.checkpoint
        name = self.config.checkpoint
        if name is None:
            raise ConfigError(f"{where}.checkpoint", "not given", missing("a folder with a tokenizer"))
        if os.path.isdir(name) and self.config.revision is None:  # a tokenizer alone: no weights are asked for
            return without_weights(name, f"{where}.checkpoint")
        return resolve(name, self.config.revision, f"{where}.checkpoint")

    def _encode(self, text: str, truncated: bool) -> Any:
        if not text.isascii() and _SURROGATE.search(text):
            raise SampleError("encoding", "the text holds half a surrogate pair, which is no character")
        if truncated and self.max_length is not None:
            return self._encode_start(text)
        return self._call(self._whole, text, truncated=False)

    def _encode_start(self, text: str) -> Any:
        """The first ``max_length`` tokens, from a beginning of the text that is surely long enough: a tokenizer reads
        all that it is given, at a kilobyte of memory a token, before it truncates."""
        assert self.max_length is not None
        size = _CHARS_PER_TOKEN * self.max_length + _MARGIN_CHARS
        while size < len(text):
            encoded = self._call(self._cutting, text[:size], truncated=True)
            reach = max(end for _, end in encoded["offset_mapping"]) - len(self.config.prompt)
            if len(encoded["input_ids"]) >= self.max_length and reach <= size - _MARGIN_CHARS:
                return encoded  # what was cut off lies too far away to change a token
            size *= 4
        return self._call(self._cutting, text, truncated=True)

    def _call(self, tokenizer: Any, text: str, truncated: bool) -> Any:
        return tokenizer(
            self.config.prompt + text,
            truncation=truncated and self.max_length is not None,
            max_length=self.max_length if truncated else None,
            return_special_tokens_mask=True,
            return_offsets_mapping=True,
            verbose=False,
        )

    def _count(self, text: str) -> int:
        return len(self._encode(text, truncated=False)["input_ids"])

    def _fits(self, text: str) -> bool:
        assert self.max_length is not None
        return self._count(text) <= self.max_length


def _load(checkpoint: Checkpoint) -> Any:
    """The checkpoint's fast tokenizer. Raises ``ConfigError``."""
    from transformers import AutoTokenizer

    try:
        with bounded_memory():
            tokenizer = AutoTokenizer.from_pretrained(checkpoint.path, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # each tokenizer class raises its own
        raise ConfigError(
            checkpoint.where,
            f"{checkpoint.name!r} has no tokenizer that loads ({describe(error)})",
            "save the model's own tokenizer into the same folder",
        ) from error
    if not tokenizer.is_fast:
        raise ConfigError(
            checkpoint.where, f"{type(tokenizer).__name__} is a slow tokenizer", "give one with a tokenizer.json"
        )
    if (growth := _growth(tokenizer.backend_tokenizer)) > _MAX_GROWTH:
        raise ConfigError(
            checkpoint.where,
            f"the steps of the tokenizer of {checkpoint.name!r} make up to {growth:.3g} characters of each",
            f"at most {_MAX_GROWTH}",
        )
    return tokenizer


def _growth(backend: Any) -> float:
    """Upper bound of the characters that normalizers and pre-tokenizers make of one: each replaces what the one before
    made. Of a known library, so that steps of another kind do not grow (`tokenizers`, src/normalizers)."""
    growth = 1.0
    for part in (backend.normalizer, backend.pre_tokenizer):
        todo = [] if part is None else [json.loads(part.__getstate__())]
        while todo:
            one = todo.pop()
            todo += [*(one.get("normalizers") or []), *(one.get("pretokenizers") or [])]
            if one.get("type") == "Replace":
                pattern = one.get("pattern", {}).get("String") or "x"  # a regular expression matches one or more
                growth *= max(1.0, len(one.get("content", "")) / len(pattern))
            growth *= _STEP_GROWTH.get(one.get("type"), 1)
            growth += len(one.get("prepend", ""))
    return growth


def _positions(checkpoint: Checkpoint) -> int | None:
    """Tokens that the model's table of positions has room for; None if there is no model or no table."""
    if not checkpoint.json("config.json"):
        return None
    config = checkpoint.model_config().get_text_config()
    rows = getattr(config, "max_position_embeddings", None)
    if rows is None:
        return None
    if config.model_type in _POSITIONS_START_AFTER_PADDING:
        rows -= (config.pad_token_id or 0) + 1
    return int(rows)


def _least(tokenizer_says: int, model_says: int | None) -> int | None:
    known = [limit for limit in (tokenizer_says, model_says) if limit is not None and limit < _UNSET]
    return int(min(known)) if known else None
