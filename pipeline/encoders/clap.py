"""Text and sound in one embedding space, with CLAP (https://arxiv.org/abs/2211.06687)."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import ConfigDict

from pipeline.core.errors import SampleError
from pipeline.encoders._shared import audio
from pipeline.encoders._shared import text as _text
from pipeline.encoders._shared.audio import EncodedPart, Part
from pipeline.encoders._shared.device import download, upload
from pipeline.encoders._shared.microbatches import SATURATING_TOKENS
from pipeline.encoders._shared.transformers_encoder import TransformersEncoder, TransformersEncoderConfig
from pipeline.encoders._shared.weights import native_dtype, space_id
from pipeline.encoders.base import Encoded, EncoderSpec
from pipeline.tokenizers.base import ModelInputs

if TYPE_CHECKING:
    import torch


class ClapConfig(TransformersEncoderConfig):
    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["clap"]
    long: Literal["truncate", "pool"] = "truncate"
    """Sound longer than the model's input span (10 s), of which the feature extractor would take a random crop.
    ``truncate``: only its first span is encoded. ``pool``: chunks of equal length that fit are encoded; their tokens
    are concatenated, and the pooled vector is the mean of theirs."""


class ClapEncoder(TransformersEncoder):
    """Pooled: the projected vectors of text and sound, in one space.

    Text tokens: last hidden states. Sound tokens: patches of the last stage, grid (T, F, 1), time-major. The
    extractor repeats short sound until it fills the span, and the pooled vector depends on the repetitions, as in the
    reference. Time steps that begin after the sound are dropped.
    """

    model_types = ("clap",)
    modalities = ("text", "audio")
    config: ClapConfig
    saturating_units = SATURATING_TOKENS

    def check(self, where: str) -> None:
        self.tokenizer_kinds = ("text",) if self.modality == "text" else ("audio_frame",)
        super().check(where)
        if self.modality == "text":
            _text.check_tokenizer_files(self.checkpoint)
            return
        audio.check_sound(self.checkpoint, self.tokenizer, where)
        extractor, config = audio.load_extractor(self.checkpoint), self.model_config().audio_config
        audio.check_equal(self.checkpoint, "mel bins", extractor.feature_size, config.num_mel_bins)
        audio.check_equal(self.checkpoint, "fusion", extractor.truncation == "fusion", config.enable_fusion)

    def spec(self) -> EncoderSpec:
        config = self.model_config()
        text = self.modality == "text"
        return EncoderSpec(
            dim=config.projection_dim,
            token_dim=(config.text_config if text else config.audio_config).hidden_size,
            space=space_id(self.checkpoint),
            normalized=True,
            native_dtype=native_dtype(self.checkpoint),
            model_type=self.checkpoint.model_type,
            processor=_text.tokenizer_name(self.checkpoint)
            if text
            else type(audio.load_extractor(self.checkpoint)).__name__,
        )

    def load_key(self) -> Hashable:
        """Does not contain the modality: text and audio features share one model in memory."""
        return self._weights_key()

    def load(self) -> torch.nn.Module:
        from transformers import ClapModel

        model: torch.nn.Module = self.from_pretrained(ClapModel)
        return model

    def setup(self) -> None:
        super().setup()
        if self.modality == "audio":
            self.extractor = audio.load_extractor(self.checkpoint)
            self.span = int(self.extractor.nb_max_samples)
            tower = self.model.audio_model.audio_encoder
            height, width = tower.input_resolutions[-1]  # the model folds segments of time onto the frequency axis
            self.bands, self.steps = height // tower.freq_ratio, width * tower.freq_ratio

    def bucket(self, row: ModelInputs) -> tuple[()]:
        return ()

    def length(self, row: ModelInputs) -> int:
        return len(row.inputs["input_ids"]) if self.modality == "text" else 0

    @property
    def splits_rows(self) -> bool:
        return self.modality == "audio"

    def forward(self, rows: Sequence[ModelInputs], want_tokens: bool) -> list[Encoded | SampleError]:
        if self.modality == "text":
            ids, mask = _text.pad(rows, self.model.config.text_config.pad_token_id, self.device)
            output = self.model.get_text_features(input_ids=ids, attention_mask=mask)
            return [*_text.split(rows, output.pooler_output, output.last_hidden_state if want_tokens else None)]
        step_s = self.span / self.steps / self.extractor.sampling_rate
        parts, errors = audio.split_rows(rows, self.extractor.sampling_rate, self._divide)
        encoded = audio.encode_in_batches(parts, self.batch_size, lambda batch: self._encode(batch, want_tokens))
        return audio.join_parts(len(rows), parts, encoded, errors, step_s, self.bands)

    def _divide(self, samples: np.ndarray) -> list[np.ndarray]:
        if self.config.long == "truncate":
            return [samples[: self.span]]
        return list(np.array_split(samples, math.ceil(len(samples) / self.span)))

    def _encode(self, parts: Sequence[Part], want_tokens: bool) -> list[EncodedPart]:
        # One waveform at a time: given several, the extractor picks at random which of them counts as long.
        made = [audio.extract(self.extractor, part.samples) for part in parts]
        mel = np.concatenate([one["input_features"] for one in made])
        is_longer = np.concatenate([one["is_longer"] for one in made])
        output = self.model.get_audio_features(
            input_features=upload(mel, self.device, self.dtype),
            is_longer=upload(is_longer, self.device),
        )
        pooled = download(output.pooler_output)
        states = download(output.last_hidden_state) if want_tokens else None  # [B, d, F, T]
        done = []
        for i, part in enumerate(parts):
            steps = min(self.steps, math.ceil(len(part.samples) * self.steps / self.span))
            tokens = None
            if states is not None:
                tokens = np.ascontiguousarray(states[i, :, :, :steps].transpose(2, 1, 0)).reshape(
                    steps * self.bands, -1
                )
            done.append(EncodedPart(pooled[i].copy(), steps, 1.0, tokens))
        return done
