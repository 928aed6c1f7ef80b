"""EmbeddingGemma 2: text, images, video and sound in one embedding space, through one language model.

Source: https://huggingface.co/google/embeddinggemma-2
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import ConfigDict, Field

from pipeline.core.errors import ConfigError, SampleError
from pipeline.core.media import Modality
from pipeline.encoders._shared import audio
from pipeline.encoders._shared import text as _text
from pipeline.encoders._shared.audio import EncodedPart, Part
from pipeline.encoders._shared.gemma import (
    Prompt,
    forward_pictures,
    forward_prompts,
    forward_sounds,
    forward_text,
    load_gemma_processor,
    patch_grids,
)
from pipeline.encoders._shared.microbatches import SATURATING_TOKENS
from pipeline.encoders._shared.transformers_encoder import TransformersEncoder, TransformersEncoderConfig
from pipeline.encoders._shared.weights import native_dtype, space_id
from pipeline.encoders.base import Encoded, EncoderSpec
from pipeline.tokenizers.base import ModelInputs
from pipeline.tokenizers.pixel_processor import PixelProcessor, load_frame_processor, load_processor

if TYPE_CHECKING:
    import torch


class EmbeddingGemma2Config(TransformersEncoderConfig):
    """``batch_size`` counts rows in the language model, and pictures or video frames in the vision tower."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["embedding_gemma2"]
    batch_tokens: int = Field(default=16_384, ge=1)
    """Tokens in one forward pass of the language model, or patches in one of the vision tower, padding included."""
    long: Literal["truncate", "pool"] = "truncate"
    """Sound longer than the model's input span (30 s). ``truncate``: only its first span is encoded, as by the feature
    extractor. ``pool``: chunks of equal length that fit are encoded; their tokens are concatenated, and the pooled
    vector is the mean of theirs."""


class EmbeddingGemma2Encoder(TransformersEncoder):
    """Pooled: the mean of all last hidden states, including those of special tokens, as in the model's training.

    Tokens: the last hidden states of a text's tokens, or of the soft tokens that a tower makes. Grids: image (1, H, W);
    video (T, H, W), or (T, 1, 1), each frame's mean, with ``tokenizer.tokens: frame``; sound (N, 1, 1), one per 40 ms.
    If the checkpoint's processor writes timestamps between frames, they are the frames' times in the source, in whole
    seconds.
    """

    model_types = ("embedding_gemma2",)
    modalities: tuple[Modality, ...] = ("text", "image", "video", "audio")
    kinds: ClassVar[Mapping[str, str]] = {"text": "text", "image": "patch", "video": "frame", "audio": "audio_frame"}
    config: EmbeddingGemma2Config
    saturating_units = SATURATING_TOKENS

    # -- on the driver -------------------------------------------------------------------------

    def check(self, where: str) -> None:
        self.tokenizer_kinds = (self.kinds[self.modality],)
        super().check(where)
        dtype = native_dtype(self.checkpoint) if self.config.dtype == "auto" else self.config.dtype
        if dtype == "float16":
            raise ConfigError(
                f"{where}.encoder.dtype", f"{self.config.dtype!r}: float16", "float32 or bfloat16, or it overflows"
            )
        _text.check_tokenizer_files(self.checkpoint)
        config = self.model_config()
        tower = {"audio": config.audio_config, "text": config.text_config}.get(self.modality, config.vision_config)
        if tower is None:
            raise ConfigError(
                self.checkpoint.where,
                f"{self.checkpoint.name!r} has no tower for {self.modality}",
                "give a whole checkpoint",
            )
        if self.modality == "text":
            return
        processor = load_gemma_processor(self.checkpoint)
        name = f"{self.modality}_token_id"
        audio.check_equal(self.checkpoint, name, getattr(processor, name), getattr(config, name))
        if self.modality == "audio":
            audio.check_sound(self.checkpoint, self.tokenizer, where)
            bands = math.ceil(processor.feature_extractor.feature_size / 4)
            audio.check_equal(self.checkpoint, "mel bins / 4", bands, tower.subsampling_conv_channels[0] // 4)
        else:
            pixel_processor = self._pixel_processor().processor
            for name in ("patch_size", "pooling_kernel_size"):
                audio.check_equal(self.checkpoint, name, getattr(pixel_processor, name), getattr(tower, name))

    def spec(self) -> EncoderSpec:
        dim = self.model_config().text_config.embedding_dim
        if self.modality == "text":
            processor = _text.tokenizer_name(self.checkpoint)
        elif self.modality == "audio":
            processor = type(audio.load_extractor(self.checkpoint)).__name__
        else:
            processor = self._pixel_processor().name
        return EncoderSpec(
            dim=dim,
            token_dim=dim,
            space=space_id(self.checkpoint),
            normalized=True,
            native_dtype=native_dtype(self.checkpoint),
            model_type=self.checkpoint.model_type,
            processor=processor,
        )

    def _pixel_processor(self) -> PixelProcessor:
        return load_frame_processor(self.checkpoint) if self.modality == "video" else load_processor(self.checkpoint)

    # -- in the worker -------------------------------------------------------------------------

    def load_key(self) -> Hashable:
        """Does not contain the modality: features of all four share one model in memory."""
        return self._weights_key()

    def load(self) -> torch.nn.Module:
        from transformers import EmbeddingGemma2Model

        model: torch.nn.Module = self.from_pretrained(EmbeddingGemma2Model)
        return model

    def setup(self) -> None:
        super().setup()
        if self.modality == "text":
            return
        self.processor = load_gemma_processor(self.checkpoint)
        self.placeholder_id = int(getattr(self.processor, f"{self.modality}_token_id"))
        if self.modality == "audio":
            self.extractor = audio.load_extractor(self.checkpoint)
            # Samples that the extractor keeps of a longer sound: a default argument of its call, not an attribute.
            self.span = int(inspect.signature(type(self.extractor).__call__).parameters["max_length"].default)
        else:
            self.pixel_processor = self._pixel_processor()

    def bucket(self, row: ModelInputs) -> tuple[()]:
        return ()

    def length(self, row: ModelInputs) -> int:
        return len(row.inputs["input_ids"]) if self.modality == "text" else 0

    def max_units(self) -> float | None:
        return self.config.batch_tokens if self.modality == "text" else None

    @property
    def splits_rows(self) -> bool:
        return self.modality != "text"

    def forward(self, rows: Sequence[ModelInputs], want_tokens: bool) -> list[Encoded | SampleError]:
        if self.modality == "text":
            pad_id = self.model.config.text_config.pad_token_id
            pooled, hidden = forward_text(self.model, *_text.pad(rows, pad_id, self.device))
            return list(_text.split(rows, pooled, hidden if want_tokens else None))
        if self.modality == "audio":
            parts, errors = audio.split_rows(rows, self.extractor.sampling_rate, self._divide)
            encoded = audio.encode_in_batches(
                parts, self.batch_size, lambda batch: self._encode_sounds(batch, want_tokens)
            )
            return audio.join_parts(len(rows), parts, encoded, errors, self.processor.audio_ms_per_token / 1000)
        return list(self._encode_pictures(rows, want_tokens))

    def _prompt(self, text: str, soft_tokens: torch.Tensor) -> Prompt:
        ids = np.asarray(self.processor.tokenizer(text)["input_ids"], np.int64)
        positions = np.flatnonzero(ids == self.placeholder_id)
        assert len(positions) == len(soft_tokens), f"{len(positions)} places for {len(soft_tokens)} soft tokens"
        return Prompt(ids, positions, soft_tokens)

    def _encode_pictures(self, rows: Sequence[ModelInputs], want_tokens: bool) -> list[Encoded]:
        """Encodes pictures, or videos as the pictures of their frames."""
        import torch

        limits = (self.batch_size, self.adaptive_batch.scale(self.config.batch_tokens))
        kernel = self.model.config.vision_config.pooling_kernel_size
        pictures = [patch_grids(row) for row in rows]
        flat = [picture for own in pictures for picture in own]
        soft_tokens = iter(forward_pictures(self.model, self.pixel_processor, flat, *limits))
        prompts = []
        for row, own in zip(rows, pictures, strict=True):
            soft = [next(soft_tokens) for _ in own]
            prompts.append(self._prompt(self._prompt_text(row, len(soft[0])), torch.cat(soft)))
        outputs = forward_prompts(self.model, prompts, *limits, want_tokens)
        done = []
        for row, own, one in zip(rows, pictures, outputs, strict=True):
            if not want_tokens:
                done.append(Encoded(one.pooled))
                continue
            tokens, grid = one.tokens, (len(own), own[0].height // kernel, own[0].width // kernel)
            if self.modality == "video" and self.tokenizer.tokens == "frame":
                tokens, grid = tokens.reshape(len(own), -1, tokens.shape[1]).mean(1), (len(own), 1, 1)
            done.append(Encoded(one.pooled, tokens, one.prefix, grid=grid, times_s=row.times_s))
        return done

    def _prompt_text(self, row: ModelInputs, soft_tokens: int) -> str:
        """The processor's text for one picture or video whose pictures have ``soft_tokens`` each."""
        if self.modality == "image":
            return str(self.processor.replace_image_token({"num_soft_tokens_per_image": [soft_tokens]}, 0))
        from transformers.video_utils import VideoMetadata

        assert row.times_s is not None
        times = row.times_s.tolist()
        video = {
            "num_soft_tokens_per_video": [soft_tokens],
            "num_frames_per_video": [len(times)],
            "video_metadata": [VideoMetadata(total_num_frames=len(times), fps=1.0, frames_indices=times)],
        }
        return str(self.processor.replace_video_token(video, 0, videos_kwargs={}, load_audio_from_video=False))

    def _divide(self, samples: np.ndarray) -> list[np.ndarray]:
        needed = self.extractor.frame_length - self.extractor.frame_length // 2 + 1
        if len(samples) < needed:
            raise SampleError("empty", f"{len(samples)} samples are too short: the model's first frame takes {needed}")
        if self.config.long == "truncate":
            return [samples[: self.span]]
        return list(np.array_split(samples, math.ceil(len(samples) / self.span)))

    def _encode_sounds(self, parts: Sequence[Part], want_tokens: bool) -> list[EncodedPart]:
        # A list of one, because this extractor would take the samples of a bare array for channels.
        features = [audio.extract(self.extractor, [part.samples]) for part in parts]
        sounds = [(one["input_features"][0], one["input_features_mask"][0]) for one in features]
        texts = [self.processor.replace_audio_token({"input_features_mask": [mask]}, 0) for _, mask in sounds]
        soft_tokens = forward_sounds(self.model, sounds)
        prompts = [self._prompt(text, own) for text, own in zip(texts, soft_tokens, strict=True)]
        batch_tokens = self.adaptive_batch.scale(self.config.batch_tokens)
        outputs = forward_prompts(self.model, prompts, len(prompts), batch_tokens, want_tokens)
        return [
            EncodedPart(one.pooled, len(prompt.soft_positions), 1.0, *((one.tokens, one.prefix) if want_tokens else ()))
            for prompt, one in zip(prompts, outputs, strict=True)
        ]
