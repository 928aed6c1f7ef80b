"""Decoded media -> token sequences. One file for each member; a new one is a file and a line in each table.

base.py              Tokenizer, and the model inputs that it makes
pixel_processor.py   resizing and cropping as a checkpoint's own processor does; encoders ask it for sizes
_shared/             sampling of frames, cutting of texts

It imports `checkpoint`, `core`.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from pipeline.checkpoint.checkpoint import Checkpoint
from pipeline.tokenizers.audio_frame import AudioFrameConfig, AudioFrameTokenizer
from pipeline.tokenizers.base import Tokenizer
from pipeline.tokenizers.frame import FrameConfig, FrameTokenizer
from pipeline.tokenizers.patch import PatchConfig, PatchTokenizer
from pipeline.tokenizers.text import TextTokenizer, TextTokenizerConfig
from pipeline.tokenizers.tubelet import TubeletConfig, TubeletTokenizer

TokenizerConfig = Annotated[
    TextTokenizerConfig | PatchConfig | FrameConfig | TubeletConfig | AudioFrameConfig, Field(discriminator="kind")
]

_MEMBERS: dict[type, Any] = {
    TextTokenizerConfig: TextTokenizer,
    PatchConfig: PatchTokenizer,
    FrameConfig: FrameTokenizer,
    TubeletConfig: TubeletTokenizer,
    AudioFrameConfig: AudioFrameTokenizer,
}


def build(config: TokenizerConfig, checkpoint: Checkpoint | None) -> Tokenizer:
    """The tokenizer of ``config``; ``checkpoint`` is the encoder's, None if it has none."""
    tokenizer: Tokenizer = _MEMBERS[type(config)](config, checkpoint)
    return tokenizer
