"""Tokenizes text with the checkpoint's fast tokenizer, and cuts long texts into windows."""

from __future__ import annotations

import re
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pipeline.checkpoint.checkpoint import Checkpoint, of_tokenizer
from pipeline.core.errors import ConfigError, SampleError
from pipeline.core.media import Media, Modality, Text, TextRequest
from pipeline.tokenizers._shared.fast_tokenizer import load_fast_tokenizer, max_positions, smaller_limit
from pipeline.tokenizers._shared.token_windows import Cutter
from pipeline.tokenizers.base import ModelInputs, missing

_CHARS_PER_TOKEN, _MARGIN_CHARS = 16, 4096
"""Characters of a text that are tokenized first when it is truncated: per token of ``max_length``, and in addition."""
_SURROGATE = re.compile("[\ud800-\udfff]")


class TextTokenizerConfig(BaseModel):
    """Token sequences of at most ``max_length`` tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["text"]
    max_length: int | None = Field(default=None, ge=1)
    """Maximum tokens of one row, special tokens and prompt included. null: the limit of the tokenizer and the model."""
    overflow: Literal["truncate", "windows"] = "truncate"
    """A longer text. ``truncate``: its end is cut off. ``windows``: it is cut into several windows, each a row."""
    overlap: int = Field(default=0, ge=0)
    """Approximate number of tokens that neighbouring windows share. Windows begin and end at words."""
    prompt: str = ""
    """Prefix of every text, such as ``"query: "``."""
    checkpoint: str | None = None
    """Only for an encoder without a checkpoint (``raw``): a folder with a tokenizer, its URL, or a hub id."""
    revision: str | None = None
    """The commit of a hub id, 40 hex digits."""


class TextTokenizer:
    """Text -> token ids.

    ``inputs``: ``input_ids`` int32 [n] with special tokens; ``special_mask`` uint8 [n], 1 for special tokens. No
    padding.
    """

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
        max_tokens = self.max_length - fixed
        if max_tokens < 1:
            raise ConfigError(
                f"{where}.max_length",
                str(self.max_length),
                f"more than {fixed}: special tokens and prompt alone take so many",
            )
        if self.config.overlap >= max_tokens:
            raise ConfigError(
                f"{where}.overlap", str(self.config.overlap), f"less than {max_tokens}, a window's own tokens"
            )

    def request(self) -> TextRequest:
        return TextRequest()

    def setup(self, where: str = "tokenizer") -> None:
        """``where``: the tokenizer's path in the config, for errors."""
        source = self._source(where)
        # The library's tokenizer stores whether it truncates. Two of them, so that threads never change that setting.
        self._truncating, self._untruncated = load_fast_tokenizer(source), load_fast_tokenizer(source)
        self.limit = max_positions(source)
        self.max_length = self.config.max_length or smaller_limit(self._untruncated.model_max_length, self.limit)
        self._encode("a", truncated=True)

    def tokenize(self, media: Media) -> ModelInputs:
        assert isinstance(media, Text)
        if media.text.isspace():  # some tokenizers have tokens for white space
            raise SampleError("empty", "no words in it")
        encoded = self._encode(media.text, truncated=True)
        special = np.asarray(encoded["special_tokens_mask"], np.uint8)
        ends = np.asarray(encoded["offset_mapping"], np.int64).reshape(-1, 2)[:, 1]
        if not np.any((special == 0) & (ends > len(self.config.prompt))):
            raise SampleError("empty", f"the tokenizer finds no token in {len(media.text)} characters")
        return ModelInputs({"input_ids": np.asarray(encoded["input_ids"], np.int32), "special_mask": special})

    def cut(self, text: str) -> list[tuple[int, int]]:
        """Spans of characters ``[start, end)`` of the token windows of ``text``.

        Each span, tokenized separately, has at most ``max_length`` tokens. Together they contain all characters that
        are not white space, in order. They begin and end at words, except within a word that is too long for a window.
        A character with more tokens than a window can have is a span by itself. A text of white space only is one span,
        which `tokenize` refuses as ``empty``.
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

    def _source(self, where: str) -> Checkpoint:
        """The checkpoint that holds the tokenizer: the encoder's, or that of the config."""
        if self.checkpoint is not None:
            return self.checkpoint
        name = self.config.checkpoint
        if name is None:
            raise ConfigError(f"{where}.checkpoint", "not given", missing("a folder with a tokenizer"))
        return of_tokenizer(name, self.config.revision, f"{where}.checkpoint")

    def _encode(self, text: str, truncated: bool) -> Any:
        if not text.isascii() and _SURROGATE.search(text):
            raise SampleError("encoding", "the text holds half a surrogate pair, which is no character")
        if truncated and self.max_length is not None:
            return self._encode_start(text)
        return self._call(self._untruncated, text, truncated=False)

    def _encode_start(self, text: str) -> Any:
        """The first ``max_length`` tokens, computed from a sufficiently long beginning of the text.

        A tokenizer tokenizes its whole input before it truncates, and takes a kilobyte of memory per token.
        """
        assert self.max_length is not None
        size = _CHARS_PER_TOKEN * self.max_length + _MARGIN_CHARS
        while size < len(text):
            encoded = self._call(self._truncating, text[:size], truncated=True)
            reach = max(end for _, end in encoded["offset_mapping"]) - len(self.config.prompt)
            if len(encoded["input_ids"]) >= self.max_length and reach <= size - _MARGIN_CHARS:
                return encoded  # the rest of the text is too far away to change these tokens
            size *= 4
        return self._call(self._truncating, text, truncated=True)

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
