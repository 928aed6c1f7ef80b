"""EmbeddingGemma 2: text, images, video and sound through one language model, in one space.

https://huggingface.co/google/embeddinggemma-2
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import ConfigDict, Field

from pipeline.checkpoint.files import bounded_memory
from pipeline.core.errors import ConfigError, SampleError, describe
from pipeline.core.media import Modality
from pipeline.encoders._shared import audio
from pipeline.encoders._shared import text as _text
from pipeline.encoders._shared.audio import EncodedPart, Part
from pipeline.encoders._shared.gemma import Picture, Said, hear, read, see, understand
from pipeline.encoders._shared.microbatches import ENOUGH_TOKENS
from pipeline.encoders._shared.transformers_encoder import TransformersEncoder, TransformersEncoderConfig
from pipeline.encoders._shared.weights import native_dtype, space_id
from pipeline.encoders.base import Encoded, EncoderSpec
from pipeline.tokenizers.base import ModelInputs
from pipeline.tokenizers.pixel_processor import PixelProcessor, load_frame_processor, load_processor

if TYPE_CHECKING:
    import torch


class EmbeddingGemma2Config(TransformersEncoderConfig):
    """``batch_size`` counts rows for the language model, pictures (a video's are its frames) for the vision tower."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["embedding_gemma2"]
    batch_tokens: int = Field(default=16_384, ge=1)
    """Tokens of the language model, or patches of the vision tower, in one forward pass, padding included."""
    long: Literal["truncate", "pool"] = "truncate"
    """Sound longer than the model's span (30 s): its first span, as the model's own extractor takes it, or equal
    chunks that fit, their tokens in a row, the pooled vector the mean of theirs."""


class EmbeddingGemma2Encoder(TransformersEncoder):
    """Pooled: the mean of all last hidden states, those of special tokens among them, as the model is trained.

    Tokens: the last hidden states of a text's words, or of the soft tokens that a tower makes: image grid (1, H, W);
    video (T, H, W), or (T, 1, 1), each frame's mean, for ``tokenizer.tokens: frame``; sound (N, 1, 1), one each 40 ms.
    A checkpoint that writes timestamps between the frames is told the frames' times in the source, in whole seconds.
    """

    model_types = ("embedding_gemma2",)
    modalities: tuple[Modality, ...] = ("text", "image", "video", "audio")
    kinds: ClassVar[Mapping[str, str]] = {"text": "text", "image": "patch", "video": "frame", "audio": "audio_frame"}
    config: EmbeddingGemma2Config
    enough = ENOUGH_TOKENS

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
        processor = self._processor()
        name = f"{self.modality}_token_id"
        audio.check_equal(self.checkpoint, name, getattr(processor, name), getattr(config, name))
        if self.modality == "audio":
            audio.check_sound(self.checkpoint, self.tokenizer, where)
            bands = math.ceil(processor.feature_extractor.feature_size / 4)
            audio.check_equal(self.checkpoint, "mel bins / 4", bands, tower.subsampling_conv_channels[0] // 4)
        else:
            made = self._pixel_processor().processor
            for name in ("patch_size", "pooling_kernel_size"):
                audio.check_equal(self.checkpoint, name, getattr(made, name), getattr(tower, name))

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

    def _processor(self) -> Any:
        """The one for all modalities: it says which tokens stand around a medium."""
        from transformers import EmbeddingGemma2Processor

        try:
            with bounded_memory():
                return EmbeddingGemma2Processor.from_pretrained(
                    self.checkpoint.path, trust_remote_code=False, local_files_only=True
                )
        except Exception as error:  # each of its four parts raises its own
            raise ConfigError(
                self.checkpoint.where,
                f"{self.checkpoint.name!r} has no processor that loads ({describe(error)})",
                "save the model's own processor into the same folder",
            ) from error

    # -- in the worker -------------------------------------------------------------------------

    def load_key(self) -> Hashable:
        """Without the modality: all four are one model in memory."""
        return self._loaded_as()

    def load(self) -> torch.nn.Module:
        from transformers import EmbeddingGemma2Model

        model: torch.nn.Module = self.from_pretrained(EmbeddingGemma2Model)
        return model

    def setup(self) -> None:
        super().setup()
        if self.modality == "text":
            return
        self.processor = self._processor()
        self.place = int(getattr(self.processor, f"{self.modality}_token_id"))
        if self.modality == "audio":
            self.extractor = audio.load_extractor(self.checkpoint)
            # The samples that it keeps of a longer sound: a default of its call, stored nowhere.
            self.span = int(inspect.signature(type(self.extractor).__call__).parameters["max_length"].default)
        else:
            self.pixels = self._pixel_processor()

    def bucket(self, row: ModelInputs) -> tuple[()]:
        return ()

    def length(self, row: ModelInputs) -> int:
        return len(row.inputs["input_ids"]) if self.modality == "text" else 0

    def max_units(self) -> float | None:
        return self.config.batch_tokens if self.modality == "text" else None

    @property
    def in_pieces(self) -> bool:
        return self.modality != "text"

    def forward(self, rows: Sequence[ModelInputs], want_tokens: bool) -> list[Encoded | SampleError]:
        if self.modality == "text":
            pooled, hidden = read(self.model, *_text.pad(rows, self.model.config.text_config.pad_token_id, self.device))
            return list(_text.split(rows, pooled, hidden if want_tokens else None))
        if self.modality == "audio":
            parts, refused = audio.parts_of(rows, self.extractor.sampling_rate, self._divide)
            encoded = audio.in_batches(parts, self.batch_size, lambda some: self._listen(some, want_tokens))
            return audio.rows_of(len(rows), parts, encoded, refused, self.processor.audio_ms_per_token / 1000)
        return list(self._look(rows, want_tokens))

    def _said(self, text: str, vectors: torch.Tensor) -> Said:
        ids = np.asarray(self.processor.tokenizer(text)["input_ids"], np.int64)
        soft = np.flatnonzero(ids == self.place)
        assert len(soft) == len(vectors), f"{len(soft)} places for {len(vectors)} soft tokens"
        return Said(ids, soft, vectors)

    def _look(self, rows: Sequence[ModelInputs], want_tokens: bool) -> list[Encoded]:
        """Pictures, or videos as the pictures of their frames."""
        import torch

        limits = (self.batch_size, self.fit.of(self.config.batch_tokens))
        kernel = self.model.config.vision_config.pooling_kernel_size
        pictures = [_pictures(row) for row in rows]
        seen = iter(see(self.model, self.pixels, [picture for own in pictures for picture in own], *limits))
        said = []
        for row, own in zip(rows, pictures, strict=True):
            soft = [next(seen) for _ in own]
            said.append(self._said(self._prompt(row, len(soft[0])), torch.cat(soft)))
        done = []
        for row, own, one in zip(rows, pictures, understand(self.model, said, *limits, want_tokens), strict=True):
            if not want_tokens:
                done.append(Encoded(one.pooled))
                continue
            tokens, grid = one.tokens, (len(own), own[0].height // kernel, own[0].width // kernel)
            if self.modality == "video" and self.tokenizer.tokens == "frame":
                tokens, grid = tokens.reshape(len(own), -1, tokens.shape[1]).mean(1), (len(own), 1, 1)
            done.append(Encoded(one.pooled, tokens, one.prefix, grid=grid, times_s=row.times_s))
        return done

    def _prompt(self, row: ModelInputs, soft_tokens: int) -> str:
        """What the processor writes for one picture or video whose pictures have ``soft_tokens`` each."""
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

    def _listen(self, parts: Sequence[Part], want_tokens: bool) -> list[EncodedPart]:
        # A list of one: given a bare array, this extractor takes the samples for channels.
        made = [audio.extract(self.extractor, [part.samples]) for part in parts]
        sounds = [(one["input_features"][0], one["input_features_mask"][0]) for one in made]
        prompts = [self.processor.replace_audio_token({"input_features_mask": [mask]}, 0) for _, mask in sounds]
        heard = hear(self.model, sounds)
        said = [self._said(prompt, vectors) for prompt, vectors in zip(prompts, heard, strict=True)]
        done = understand(self.model, said, len(said), self.fit.of(self.config.batch_tokens), want_tokens)
        return [
            EncodedPart(one.pooled, len(own.soft), 1.0, *((one.tokens, one.prefix) if want_tokens else ()))
            for own, one in zip(said, done, strict=True)
        ]


def _pictures(row: ModelInputs) -> list[Picture]:
    pixels, shapes = row.inputs["pixels"], row.inputs["spatial_shape"].reshape(-1, 2).tolist()
    return [
        Picture(own, height, width)
        for own, (height, width) in zip(pixels.reshape(-1, *pixels.shape[-2:]), shapes, strict=True)
    ]
