"""Decoded media -> token sequences. One file per tokenizer; a new one is a new file and a line in each table below.

text.py              token ids of texts
patch.py             pictures
frame.py             frames of videos, one by one
tubelet.py           blocks of frames
audio_frame.py       samples of sounds
base.py              Tokenizer: the interface, and ModelInputs: its output
pixel_processor.py   a checkpoint's image or video processor; encoders use it too
_shared/             sampling of frames, geometry of pictures, cutting of texts

This package imports `checkpoint` and `core`.
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
    """The tokenizer of ``config``.

    Args:
        checkpoint: the encoder's; None if it has none.
    """
    tokenizer: Tokenizer = _MEMBERS[type(config)](config, checkpoint)
    return tokenizer
