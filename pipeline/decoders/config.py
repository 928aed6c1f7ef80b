"""The config of all decoders."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.decoders import video_decord, video_pyav
from pipeline.decoders._shared.bounds import FileBounds
from pipeline.decoders.audio import AudioConfig
from pipeline.decoders.image import ImageConfig
from pipeline.decoders.limits import LimitsConfig
from pipeline.decoders.text import TextDecoderConfig

VideoConfig = Annotated[video_decord.Config | video_pyav.Config, Field(discriminator="kind")]


class DecodersConfig(FileBounds):
    """How each modality is decoded, and limits on the size of a file."""

    text: TextDecoderConfig = TextDecoderConfig()
    image: ImageConfig = ImageConfig()
    video: VideoConfig = video_pyav.Config()
    audio: AudioConfig = AudioConfig()
    limits: LimitsConfig = LimitsConfig()
