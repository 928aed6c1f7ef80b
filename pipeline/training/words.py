"""WordBoundaries: which token ids begin or end a word."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.core.errors import ConfigError

_SPACE_OF_BYTES = "Ġ"
"""The byte of a space in byte-level BPE (GPT-2)."""


@dataclass(frozen=True, eq=False)
class WordBoundaries:
    """Which token ids begin or end a word. Picklable.

    A token begins a word if its id is in ``begins``, or if the id before it is in ``ends``; so does the first token of
    a row, and the first one after a special token.

    Args:
        begins: [vocabulary] bool.
        ends: [vocabulary] bool; None: no id.
    """

    begins: np.ndarray
    ends: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, array in (("begins", self.begins), ("ends", self.ends)):
            if array is not None and (array.dtype != bool or array.shape != (len(self.begins),)):
                raise ConfigError(name, f"found {array.dtype} {[*array.shape]}", "bool [vocabulary]")

    @classmethod
    def of_tokenizer(cls, tokenizer: Any) -> WordBoundaries:
        """Returns the words of a fast tokenizer of `transformers`.

        - WordPiece (BERT): pieces that continue a word begin with ``##``. Each punctuation mark is a word.
        - BPE with a suffix (CLIP): the last piece of a word ends with ``</w>``. Each punctuation mark is a word.
        - SentencePiece, and BPE like it (T5, XLM-R, Gemma): a word begins with ``▁``.
        - byte-level BPE (GPT-2, RoBERTa, ModernBERT): a word begins with ``Ġ``.

        With the last two, a punctuation mark without a space before it belongs to the word before it, as in fairseq's
        whole-word masking for RoBERTa.

        Raises:
            ConfigError: a tokenizer that has none of these marks.
        """
        names = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ConfigError("tokenizer", f"{type(tokenizer).__name__} is a slow one", "a fast tokenizer")
        parts = json.loads(backend.to_str())
        model, kinds = parts["model"], {*_kinds(parts)}
        if model["type"] == "WordPiece":
            prefix = model["continuing_subword_prefix"]
            return cls(np.array([not name.startswith(prefix) for name in names]))
        if suffix := model.get("end_of_word_suffix"):
            return cls(np.zeros(len(names), bool), np.array([name.endswith(suffix) for name in names]))
        mark = _SPACE_OF_BYTES if "ByteLevel" in kinds else _space(parts)
        if mark is None:
            raise ConfigError(
                "tokenizer",
                f"{type(tokenizer).__name__} does not mark where words begin",
                "WordBoundaries(begins), made by hand",
            )
        return cls(np.array([name.startswith(mark) for name in names]))

    def starts(self, ids: np.ndarray, special: np.ndarray, first: np.ndarray) -> np.ndarray:
        """Returns [ids] bool: which tokens begin a word, or are special.

        Args:
            ids: [ids] of all rows.
            special: [ids] bool: special tokens.
            first: [ids] bool: the first token of each row.
        """
        before = special if self.ends is None else special | self.ends[ids]
        found: np.ndarray = self.begins[ids] | special | first
        found[1:] |= before[:-1]
        return found


def _kinds(parts: Any) -> Iterator[str]:
    """Yields the types of all parts of a tokenizer."""
    for part in _parts(parts):
        if isinstance(part.get("type"), str):
            yield part["type"]


def _parts(found: Any) -> Iterator[dict[str, Any]]:
    if isinstance(found, dict):
        yield found
        for name, value in found.items():
            if name not in ("vocab", "merges", "added_tokens"):
                yield from _parts(value)
    elif isinstance(found, list):
        for value in found:
            yield from _parts(value)


def _space(parts: Any) -> str | None:
    """Returns what a tokenizer replaces a space by; None: nothing."""
    for part in _parts([parts.get("pre_tokenizer"), parts.get("normalizer")]):
        if part.get("type") == "Metaspace":
            return str(part["replacement"])
        if part.get("type") == "Replace" and part.get("pattern") == {"String": " "}:
            return str(part["content"]) or None
    return None
