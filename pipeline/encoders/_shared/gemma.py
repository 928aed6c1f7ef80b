"""How EmbeddingGemma 2 takes a sequence in: soft tokens of its towers among words, then the language model over all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.encoders._shared.device import download, upload
from pipeline.encoders._shared.microbatches import microbatches

if TYPE_CHECKING:
    import torch

    from pipeline.tokenizers.pixel_processor import PixelProcessor


@dataclass(frozen=True)
class Picture:
    """``patches`` [height * width, P*P*3], row by row."""

    patches: np.ndarray
    height: int
    width: int


@dataclass(frozen=True)
class Said:
    """One row as the language model reads it: token ``ids`` [L], and the ``vectors`` [n, hidden size] that stand
    at the positions ``soft`` [n] instead of embeddings."""

    ids: np.ndarray
    soft: np.ndarray
    vectors: torch.Tensor


@dataclass(frozen=True)
class Understood:
    """float32 on the host: ``pooled`` [D], ``tokens`` [n, D] of the soft positions, ``prefix`` [P, D] before them."""

    pooled: np.ndarray
    tokens: np.ndarray
    prefix: np.ndarray


def see(
    model: Any, processor: PixelProcessor, pictures: Sequence[Picture], batch_size: int, batch_tokens: int
) -> list[torch.Tensor]:
    """Soft tokens [n, hidden size] of each picture, in order. Pictures of different shapes are padded and masked."""

    seen: list[torch.Tensor] = []
    for group in microbatches([len(picture.patches) for picture in pictures], batch_size, batch_tokens):
        some = [pictures[i] for i in group]
        longest = max(len(picture.patches) for picture in some)
        patches = np.zeros((len(some), longest, some[0].patches.shape[1]), some[0].patches.dtype)
        places = np.full((len(some), longest, 2), -1, np.int64)
        for i, picture in enumerate(some):
            count = len(picture.patches)
            patches[i, :count] = picture.patches
            y, x = np.divmod(np.arange(count), picture.width)
            places[i, :count, 0], places[i, :count, 1] = x, y
        pixels = processor.finish(upload(patches, model.device))
        out = model.get_image_features(pixels, upload(places, model.device))
        seen += out.pooler_output
    return seen


def hear(model: Any, sounds: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[torch.Tensor]:
    """Soft tokens [n, hidden size] of each sound: log-mel frames [m, bands] and their mask [m], padded and masked."""

    longest = max(len(frames) for frames, _ in sounds)
    features = np.zeros((len(sounds), longest, sounds[0][0].shape[1]), np.float32)
    mask = np.zeros((len(sounds), longest), bool)
    for i, (frames, own) in enumerate(sounds):
        features[i, : len(frames)], mask[i, : len(own)] = frames, own
    out = model.get_audio_features(upload(features, model.device), upload(mask, model.device))
    return [states[own] for states, own in zip(out.pooler_output, out.attention_mask, strict=True)]


def read(
    model: Any,
    ids: torch.Tensor,
    mask: torch.Tensor,
    soft: torch.Tensor | None = None,
    vectors: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The language model: ``ids`` and ``mask`` [B, L] -> mean [B, D] and last hidden states [B, L, D], float32.

    ``soft`` [B, L] bool: where ``vectors`` [n, hidden size] stand. A placeholder that a text spells out has no
    vector: it is read as padding, as in the reference.
    """
    import torch

    config = model.config
    places = torch.tensor([config.image_token_id, config.video_token_id, config.audio_token_id], device=ids.device)
    embeds = model.get_input_embeddings()(ids.masked_fill(torch.isin(ids, places), config.text_config.pad_token_id))
    if soft is not None and vectors is not None:
        embeds[soft] = vectors.to(embeds.dtype)
    hidden = model.language_model(inputs_embeds=embeds, attention_mask=mask).last_hidden_state.float()
    weight = mask[..., None].to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1), hidden


def understand(
    model: Any, said: Sequence[Said], batch_size: int, batch_tokens: int, want_tokens: bool
) -> list[Understood]:
    """What the language model makes of rows with soft tokens; without ``want_tokens`` only ``pooled``."""
    import torch

    done = []
    for group in microbatches([len(one.ids) for one in said], batch_size, batch_tokens):
        some = [said[i] for i in group]
        longest = max(len(one.ids) for one in some)
        ids = np.full((len(some), longest), model.config.text_config.pad_token_id, np.int64)
        mask, soft = np.zeros_like(ids), np.zeros(ids.shape, bool)
        for i, one in enumerate(some):
            ids[i, : len(one.ids)], mask[i, : len(one.ids)], soft[i, one.soft] = one.ids, 1, True
        words, real, places = (upload(array, model.device) for array in (ids, mask, soft))
        pooled, hidden = read(model, words, real, places, torch.cat([one.vectors for one in some]))
        vectors = download(pooled)
        states = download(hidden) if want_tokens else np.zeros((len(some), longest, 0), np.float32)
        for vector, own, one in zip(vectors, states, some, strict=True):
            done.append(Understood(vector.copy(), own[one.soft], own[: one.soft[0]].copy()))
    return done
