"""Base class of models with an image tower and a text tower in one embedding space (CLIP, SigLIP)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from pipeline.core.errors import SampleError
from pipeline.core.media import Modality
from pipeline.encoders._shared.microbatches import SATURATING_TOKENS
from pipeline.encoders._shared.pictures import PictureEncoder
from pipeline.encoders._shared.pixels import Size, pair
from pipeline.encoders._shared.weights import native_dtype, space_id
from pipeline.encoders.base import Encoded, EncoderSpec
from pipeline.tokenizers.base import ModelInputs
from pipeline.tokenizers.pixel_processor import load_processor

if TYPE_CHECKING:
    import torch


class TwoTowerEncoder(PictureEncoder):
    """Encoder of images, videos and texts into one space.

    A family implements ``dims``, ``processor_name``, ``prefix_length``, ``forward_images`` and ``forward_text``.
    """

    modalities: tuple[Modality, ...] = ("text", "image", "video")
    saturating_units = SATURATING_TOKENS
    tokenizer_kinds: tuple[str, ...] = ("text", "patch", "frame")
    kinds: ClassVar[Mapping[str, str]] = {"text": "text", "image": "patch", "video": "frame"}
    normalized = True

    @abstractmethod
    def dims(self) -> tuple[int | None, int]:
        """Widths of the pooled vector and of the tokens, for the tower of this modality. Read from JSON."""

    @abstractmethod
    def processor_name(self) -> str:
        """Name of the text tower's tokenizer, as recorded in the lineage."""

    def spec(self) -> EncoderSpec:
        dim, token_dim = self.dims()
        return EncoderSpec(
            dim=dim,
            token_dim=dim if self.per_frame else token_dim,
            space=space_id(self.checkpoint),
            normalized=self.normalized,
            native_dtype=native_dtype(self.checkpoint),
            model_type=self.checkpoint.model_type,
            processor=load_processor(self.checkpoint).name if self.is_visual else self.processor_name(),
        )

    def picture_size(self) -> Size | None:
        return pair(self.model_config().vision_config.image_size)

    def load(self) -> torch.nn.Module:
        from transformers import AutoModel

        model: torch.nn.Module = self.from_pretrained(AutoModel)
        other = "text" if self.is_visual else "vision"
        for name, _ in list(model.named_children()):
            if name.startswith(other) or (other == "vision" and name.startswith("visual")):
                setattr(model, name, None)  # saves half the memory; it is never called
        return model

    def bucket(self, row: ModelInputs) -> Hashable:
        return super().bucket(row) if self.is_visual else "text"

    def length(self, row: ModelInputs) -> int:
        return len(row.inputs["input_ids"]) if not self.is_visual else 0

    def forward(self, rows: Sequence[ModelInputs], want_tokens: bool) -> list[Encoded | SampleError]:
        return super().forward(rows, want_tokens) if self.is_visual else self.forward_text(rows, want_tokens)

    @abstractmethod
    def forward_text(self, rows: Sequence[ModelInputs], want_tokens: bool) -> list[Encoded | SampleError]:
        """Runs one forward pass of the text tower."""
