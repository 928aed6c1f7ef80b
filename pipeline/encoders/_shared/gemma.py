"""Processor and forward passes of EmbeddingGemma 2.

The vision and the audio tower turn pictures and sounds into soft tokens: vectors that replace the embeddings of
placeholder tokens in a text. The language model then runs over the whole sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.checkpoint.checkpoint import Checkpoint
from pipeline.checkpoint.files import bounded_memory
from pipeline.core.errors import ConfigError, describe
from pipeline.encoders._shared.device import download, upload
from pipeline.encoders._shared.microbatches import microbatches
from pipeline.tokenizers.base import ModelInputs

if TYPE_CHECKING:
    import torch

    from pipeline.tokenizers.pixel_processor import PixelProcessor


@dataclass(frozen=True)
class PatchGrid:
    """The patches of one picture."""

    patches: np.ndarray
    """[height * width, P*P*3], row by row."""
    height: int
    width: int


@dataclass(frozen=True)
class Prompt:
    """Input of the language model for one row."""

    ids: np.ndarray
    """Token ids [L]."""
    soft_positions: np.ndarray
    """Positions [n] in ``ids`` of the placeholder tokens."""
    soft_tokens: torch.Tensor
    """Vectors [n, hidden size] that replace the embeddings at ``soft_positions``."""


@dataclass(frozen=True)
class PromptOutput:
    """Output of the language model for one ``Prompt``; float32 on the host."""

    pooled: np.ndarray
    """[D]."""
    tokens: np.ndarray
    """[n, D], last hidden states at the soft positions."""
    prefix: np.ndarray
    """[P, D], last hidden states before the first soft position."""


def load_gemma_processor(checkpoint: Checkpoint) -> Any:
    """The checkpoint's processor for all modalities, which writes the tokens around each medium.

    Raises:
        ConfigError: it does not load.
    """
    from transformers import EmbeddingGemma2Processor

    try:
        with bounded_memory():
            return EmbeddingGemma2Processor.from_pretrained(
                checkpoint.path, trust_remote_code=False, local_files_only=True
            )
    except Exception as error:  # each of its four parts raises its own
        raise ConfigError(
            checkpoint.where,
            f"{checkpoint.name!r} has no processor that loads ({describe(error)})",
            "save the model's own processor into the same folder",
        ) from error


def patch_grids(row: ModelInputs) -> list[PatchGrid]:
    """The picture of an image row, or the frames of a video row."""
    pixels, shapes = row.inputs["pixels"], row.inputs["spatial_shape"].reshape(-1, 2).tolist()
    return [
        PatchGrid(own, height, width)
        for own, (height, width) in zip(pixels.reshape(-1, *pixels.shape[-2:]), shapes, strict=True)
    ]


def forward_pictures(
    model: Any, processor: PixelProcessor, pictures: Sequence[PatchGrid], batch_size: int, batch_tokens: int
) -> list[torch.Tensor]:
    """Runs the vision tower. Pictures of different shapes are padded and masked.

    Returns:
        Soft tokens [n, hidden size] of each picture, in order.
    """
    soft_tokens: list[torch.Tensor] = []
    for group in microbatches([len(picture.patches) for picture in pictures], batch_size, batch_tokens):
        batch = [pictures[i] for i in group]
        longest = max(len(picture.patches) for picture in batch)
        patches = np.zeros((len(batch), longest, batch[0].patches.shape[1]), batch[0].patches.dtype)
        positions = np.full((len(batch), longest, 2), -1, np.int64)
        for i, picture in enumerate(batch):
            count = len(picture.patches)
            patches[i, :count] = picture.patches
            y, x = np.divmod(np.arange(count), picture.width)
            positions[i, :count, 0], positions[i, :count, 1] = x, y
        pixels = processor.finish(upload(patches, model.device))
        out = model.get_image_features(pixels, upload(positions, model.device))
        soft_tokens += out.pooler_output
    return soft_tokens


def forward_sounds(model: Any, sounds: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[torch.Tensor]:
    """Runs the audio tower, with padding and a mask.

    Args:
        sounds: log-mel frames [m, bands] and their mask [m] for each sound.

    Returns:
        Soft tokens [n, hidden size] of each sound, in order.
    """
    longest = max(len(frames) for frames, _ in sounds)
    features = np.zeros((len(sounds), longest, sounds[0][0].shape[1]), np.float32)
    mask = np.zeros((len(sounds), longest), bool)
    for i, (frames, own) in enumerate(sounds):
        features[i, : len(frames)], mask[i, : len(own)] = frames, own
    out = model.get_audio_features(upload(features, model.device), upload(mask, model.device))
    return [states[own] for states, own in zip(out.pooler_output, out.attention_mask, strict=True)]


def forward_text(
    model: Any,
    ids: torch.Tensor,
    mask: torch.Tensor,
    soft_mask: torch.Tensor | None = None,
    soft_tokens: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Runs the language model.

    A text that spells out a placeholder token has no soft token for it. It is replaced by padding, as in the reference.

    Args:
        ids: [B, L].
        mask: attention mask [B, L].
        soft_mask: bool [B, L], true at the n positions of ``soft_tokens`` [n, hidden size].

    Returns:
        Mean over the tokens [B, D] and last hidden states [B, L, D], float32.
    """
    import torch

    config = model.config
    placeholders = torch.tensor(
        [config.image_token_id, config.video_token_id, config.audio_token_id], device=ids.device
    )
    is_placeholder = torch.isin(ids, placeholders)
    embeds = model.get_input_embeddings()(ids.masked_fill(is_placeholder, config.text_config.pad_token_id))
    if soft_mask is not None and soft_tokens is not None:
        embeds[soft_mask] = soft_tokens.to(embeds.dtype)
    hidden = model.language_model(inputs_embeds=embeds, attention_mask=mask).last_hidden_state.float()
    weight = mask[..., None].to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1), hidden


def forward_prompts(
    model: Any, prompts: Sequence[Prompt], batch_size: int, batch_tokens: int, want_tokens: bool
) -> list[PromptOutput]:
    """Runs the language model over prompts with soft tokens. Without ``want_tokens`` only ``pooled`` has values."""
    import torch

    done = []
    for group in microbatches([len(one.ids) for one in prompts], batch_size, batch_tokens):
        batch = [prompts[i] for i in group]
        longest = max(len(one.ids) for one in batch)
        ids = np.full((len(batch), longest), model.config.text_config.pad_token_id, np.int64)
        mask, soft_mask = np.zeros_like(ids), np.zeros(ids.shape, bool)
        for i, one in enumerate(batch):
            ids[i, : len(one.ids)], mask[i, : len(one.ids)], soft_mask[i, one.soft_positions] = one.ids, 1, True
        tokens, attention, soft = (upload(array, model.device) for array in (ids, mask, soft_mask))
        pooled, hidden = forward_text(model, tokens, attention, soft, torch.cat([one.soft_tokens for one in batch]))
        vectors = download(pooled)
        states = download(hidden) if want_tokens else np.zeros((len(batch), longest, 0), np.float32)
        for vector, own, one in zip(vectors, states, batch, strict=True):
            positions = one.soft_positions
            done.append(PromptOutput(vector.copy(), own[positions], own[: positions[0]].copy()))
    return done
