"""Loads a checkpoint's fast text tokenizer, and computes the maximum sequence length."""

from __future__ import annotations

import json
from typing import Any

from pipeline.checkpoint.checkpoint import Checkpoint
from pipeline.checkpoint.files import bounded_memory
from pipeline.core.errors import ConfigError, describe

_MAX_GROWTH = 1000
_STEP_GROWTH = {"Precompiled": 18, "ByteLevel": 2, "BertNormalizer": 3}
"""Maximum characters that a step makes of one: Unicode normalisation up to 18, spaces around an ideograph 3."""
_UNSET = 1_000_000_000
"""A tokenizer without a limit has a ``model_max_length`` of 1e30."""
_POSITIONS_START_AFTER_PADDING = {
    *("roberta", "xlm-roberta", "camembert", "mpnet", "clap_text_model", "roberta-prelayernorm", "data2vec-text"),
    *("xlm-roberta-xl", "longformer", "xmod", "ibert"),
}
"""Model types that number positions from ``pad_token_id + 1`` on. The rows of the table before it are not used."""


def load_fast_tokenizer(checkpoint: Checkpoint) -> Any:
    """Loads the tokenizer of `transformers`.

    Raises:
        ConfigError: it does not load, is not a fast tokenizer, or makes too many characters of one.
    """
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
    if (growth := _max_growth(tokenizer.backend_tokenizer)) > _MAX_GROWTH:
        raise ConfigError(
            checkpoint.where,
            f"the steps of the tokenizer of {checkpoint.name!r} make up to {growth:.3g} characters of each",
            f"at most {_MAX_GROWTH}",
        )
    return tokenizer


def _max_growth(backend: Any) -> float:
    """Upper bound of the characters that normalizers and pre-tokenizers make of one.

    Each step replaces the output of the one before, so their factors multiply. Steps of unknown types are counted as 1:
    in `tokenizers` (src/normalizers) only the known ones add characters.
    """
    growth = 1.0
    for part in (backend.normalizer, backend.pre_tokenizer):
        todo = [] if part is None else [json.loads(part.__getstate__())]
        while todo:
            one = todo.pop()
            todo += [*(one.get("normalizers") or []), *(one.get("pretokenizers") or [])]
            if one.get("type") == "Replace":
                pattern = one.get("pattern", {}).get("String") or "x"  # a regular expression matches at least one
                growth *= max(1.0, len(one.get("content", "")) / len(pattern))
            growth *= _STEP_GROWTH.get(one.get("type"), 1)
            growth += len(one.get("prepend", ""))
    return growth


def max_positions(checkpoint: Checkpoint) -> int | None:
    """Number of tokens for which the model has position embeddings; None without a model or a table of them."""
    if not checkpoint.json("config.json"):
        return None
    config = checkpoint.model_config().get_text_config()
    rows = getattr(config, "max_position_embeddings", None)
    if rows is None:
        return None
    if config.model_type in _POSITIONS_START_AFTER_PADDING:
        rows -= (config.pad_token_id or 0) + 1
    return int(rows)


def smaller_limit(tokenizer_limit: int, model_limit: int | None) -> int | None:
    """The smaller of the limits that are set; None if none is."""
    known = [limit for limit in (tokenizer_limit, model_limit) if limit is not None and limit < _UNSET]
    return int(min(known)) if known else None
