"""Token sequences -> vectors. One file per family of models; a new family is a new file and a line in each table below.

bert.py                text models
clip.py, siglip.py     pictures, frames and texts in one space
vit.py                 pictures: ViT, DINOv2, DINOv3
videomae.py, vjepa2.py   videos
wav2vec2.py, whisper.py, ast.py   sounds
clap.py                sounds and texts in one space
embedding_gemma2.py    text, pictures, video and sound in one space
raw.py                 no model: the tokens themselves
base.py                Encoder, EncoderSpec, Encoded: the interface of every encoder
_shared/               loading of models, micro-batches, devices, and base classes of families

This package imports `tokenizers` and the packages below it.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from pipeline.checkpoint.checkpoint import Checkpoint
from pipeline.core.media import Modality
from pipeline.encoders._shared.weights import quiet
from pipeline.encoders.ast import AstConfig, AstEncoder
from pipeline.encoders.base import Encoder
from pipeline.encoders.bert import BertConfig, BertEncoder
from pipeline.encoders.clap import ClapConfig, ClapEncoder
from pipeline.encoders.clip import ClipConfig, ClipEncoder
from pipeline.encoders.embedding_gemma2 import EmbeddingGemma2Config, EmbeddingGemma2Encoder
from pipeline.encoders.raw import RawConfig, RawEncoder
from pipeline.encoders.siglip import SiglipConfig, SiglipEncoder
from pipeline.encoders.videomae import VideoMaeConfig, VideoMaeEncoder
from pipeline.encoders.vit import VitConfig, VitEncoder
from pipeline.encoders.vjepa2 import VJepa2Config, VJepa2Encoder
from pipeline.encoders.wav2vec2 import Wav2Vec2Config, Wav2Vec2Encoder
from pipeline.encoders.whisper import WhisperConfig, WhisperEncoder

EncoderConfig = Annotated[
    BertConfig
    | ClipConfig
    | SiglipConfig
    | VitConfig
    | VideoMaeConfig
    | VJepa2Config
    | Wav2Vec2Config
    | WhisperConfig
    | AstConfig
    | ClapConfig
    | EmbeddingGemma2Config
    | RawConfig,
    Field(discriminator="kind"),
]

_MEMBERS: dict[type, Any] = {
    BertConfig: BertEncoder,
    ClipConfig: ClipEncoder,
    SiglipConfig: SiglipEncoder,
    VitConfig: VitEncoder,
    VideoMaeConfig: VideoMaeEncoder,
    VJepa2Config: VJepa2Encoder,
    Wav2Vec2Config: Wav2Vec2Encoder,
    WhisperConfig: WhisperEncoder,
    AstConfig: AstEncoder,
    ClapConfig: ClapEncoder,
    EmbeddingGemma2Config: EmbeddingGemma2Encoder,
    RawConfig: RawEncoder,
}


def build(config: EncoderConfig, checkpoint: Checkpoint | None, modality: Modality, tokenizer: Any) -> Encoder:
    """The encoder of one feature.

    Args:
        checkpoint: None for ``raw``.
        modality: the feature's modality.
        tokenizer: the config of the feature's tokenizer.
    """
    encoder: Encoder = _MEMBERS[type(config)](config, checkpoint, modality, tokenizer)
    return encoder


__all__ = ["EncoderConfig", "build", "quiet"]
