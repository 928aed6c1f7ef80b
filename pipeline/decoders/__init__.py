"""Bytes -> text, pixels, frames, waveform. One file for each member.

opening.py   open_media: which decoder reads a file, by its content
limits.py    how long a decoder may take, and how much memory
_shared/     containers, sniffing, sampling, resampling

`open_media` looks at a file's content, not its name, and gives an `OpenMedia`: what it holds, over
which time, and methods that decode a window of it. Everything raises `SampleError` only.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection
from typing import Annotated

from pydantic import Field

from pipeline.core.media import Modality
from pipeline.decoders import opening, video_decord, video_pyav
from pipeline.decoders._shared.bounds import FileBounds
from pipeline.decoders._shared.demuxer import open_av
from pipeline.decoders.audio import AudioConfig
from pipeline.decoders.image import ImageConfig
from pipeline.decoders.limits import LimitsConfig
from pipeline.decoders.opening import Opening, OpenMedia
from pipeline.decoders.text import TextDecoderConfig
from pipeline.storage.blob import Blob

VideoConfig = Annotated[video_decord.Config | video_pyav.Config, Field(discriminator="kind")]


class DecodersConfig(FileBounds):
    """How each modality is decoded, and what a file may have."""

    text: TextDecoderConfig = TextDecoderConfig()
    image: ImageConfig = ImageConfig()
    video: VideoConfig = video_pyav.Config()
    audio: AudioConfig = AudioConfig()
    limits: LimitsConfig = LimitsConfig()


def open_media(blob: Blob, hint: Modality | None, config: DecodersConfig) -> OpenMedia:
    """Open a file by its content; ``hint`` (its name's modality) decides where no magic number does.

    Raises:
        SampleError: ``empty``, ``unsupported``, ``corrupt``, ``limit``, ``missing``, ``io``, ``encoding``.
    """
    how = Opening(config.text, config.image, config.video, config.audio, bounds=config)
    return opening.open_media(blob, hint, how)


def load(modalities: Collection[Modality], config: DecodersConfig, decode: bool = True) -> None:
    """Import what opening files (with ``decode``: and decoding them) takes. It is no row's time and no row's memory."""
    names = [
        "av.format",
        "charset_normalizer",
        "PIL.ImageCms",
        "PIL.ImageFile",
        "PIL.ImageOps",
        "simplejpeg",
        "soundfile",
    ]
    if "video" in modalities:
        names.append({"decord": "decord", "pyav": "av"}[config.video.kind])
    if "audio" in modalities and decode:
        names.append("torchaudio.transforms")
    for name in names:
        importlib.import_module(name)
    importlib.import_module("PIL.Image").init()  # its plugins


__all__ = ["DecodersConfig", "OpenMedia", "load", "open_av", "open_media"]
