"""Pads token ids into batches and splits the model's output into rows; shared by text encoders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.checkpoint.checkpoint import Checkpoint
from pipeline.core.errors import ConfigError
from pipeline.encoders._shared.device import download, upload
from pipeline.encoders.base import Encoded
from pipeline.tokenizers.base import ModelInputs

if TYPE_CHECKING:
    import torch

_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model")


def check_tokenizer_files(checkpoint: Checkpoint) -> None:
    """Raises ``ConfigError`` if the checkpoint has no tokenizer."""
    if not any(os.path.exists(os.path.join(checkpoint.path, file)) for file in _TOKENIZER_FILES):
        raise ConfigError(
            checkpoint.where, f"{checkpoint.name!r} has no tokenizer files", "save its tokenizer into the same folder"
        )


def tokenizer_name(checkpoint: Checkpoint) -> str:
    """Class of the checkpoint's tokenizer and its backend, as recorded in the lineage."""
    return f"{checkpoint.json('tokenizer_config.json').get('tokenizer_class', 'AutoTokenizer')} (tokenizers)"


def pad(rows: Sequence[ModelInputs], pad_id: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """``input_ids`` and ``attention_mask``, both int64 [B, L], padded on the right to the longest row."""
    longest = max(len(row.inputs["input_ids"]) for row in rows)
    ids = np.full((len(rows), longest), pad_id, np.int64)
    mask = np.zeros((len(rows), longest), np.int64)
    for i, row in enumerate(rows):
        n = len(row.inputs["input_ids"])
        ids[i, :n] = row.inputs["input_ids"]
        mask[i, :n] = 1
    return upload(ids, device), upload(mask, device)


def split(rows: Sequence[ModelInputs], pooled: torch.Tensor, hidden: torch.Tensor | None) -> list[Encoded]:
    """One ``Encoded`` per row.

    Leading special tokens (CLS, BOS) become the prefix; other special tokens are dropped.

    Args:
        pooled: [B, D].
        hidden: last hidden states [B, L, d]; None if tokens are not wanted.
    """
    vectors = download(pooled)
    states = None if hidden is None else download(hidden)
    done = []
    for i, row in enumerate(rows):
        if states is None:
            done.append(Encoded(pooled=vectors[i].copy()))
            continue
        ids, special = row.inputs["input_ids"], row.inputs["special_mask"].astype(bool)
        leading = int(np.argmin(special))
        own = states[i, : len(ids)]
        done.append(
            Encoded(
                pooled=vectors[i].copy(),
                tokens=own[~special],
                prefix_tokens=own[:leading].copy(),
                token_ids=ids[~special].astype(np.int32),
                grid=(int((~special).sum()), 1, 1),
            )
        )
    return done
