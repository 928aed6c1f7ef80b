"""Bytes -> text, pixels, frames, waveform. One file per modality or decoding library.

text.py           texts: plain, HTML, subtitles, JSON segments
image.py          still images of every format
audio.py          sounds, from sound files and containers
video_pyav.py     videos by PyAV
video_decord.py   videos by decord
opening.py        open_media: detects what a file is by its content and opens it
media.py          OpenMedia: an open file of any modality
config.py         DecodersConfig: the options of all decoders
limits.py         limits on the time and the memory that decoding takes
_shared/          containers, format detection, sampling, resampling

`open_media` detects the format by the file's content, not by its name. It returns an `OpenMedia`, which states the
modalities in the file and the time span of each, and decodes windows of them. Only `SampleError` is raised.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection

from pipeline.core.media import Modality
from pipeline.decoders import opening
from pipeline.decoders._shared.demuxer import open_av
from pipeline.decoders.config import DecodersConfig
from pipeline.decoders.media import OpenMedia
from pipeline.storage.blob import Blob


def open_media(blob: Blob, hint: Modality | None, config: DecodersConfig) -> OpenMedia:
    """Opens a file by its content.

    Args:
        hint: modality by the file's name. It decides if no magic number does.

    Raises:
        SampleError: ``empty``, ``unsupported``, ``corrupt``, ``limit``, ``missing``, ``io``, ``encoding``.
    """
    return opening.open_media(blob, hint, config)


def load(modalities: Collection[Modality], config: DecodersConfig, decode: bool = True) -> None:
    """Imports the libraries that opening files needs, so that their time and memory do not count for any row.

    Args:
        decode: also import those that decoding needs.
    """
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
    importlib.import_module("PIL.Image").init()  # imports Pillow's plugins


__all__ = ["DecodersConfig", "OpenMedia", "load", "open_av", "open_media"]
