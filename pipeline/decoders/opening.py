"""Opens a file of any modality. Its content decides which decoder reads it."""

from __future__ import annotations

from contextlib import closing

from pipeline.core.errors import TRANSIENT_KINDS, SampleError
from pipeline.core.media import Modality
from pipeline.decoders._shared.container import Container
from pipeline.decoders._shared.joined import JoinedSamples, after_mp3, parts_of
from pipeline.decoders._shared.not_media import not_media
from pipeline.decoders._shared.samples import SoundfileSamples
from pipeline.decoders._shared.sniff import HEAD_BYTES, Shape, sniff
from pipeline.decoders.config import DecodersConfig
from pipeline.decoders.media import OpenContainer, OpenImage, OpenMedia, OpenSound, OpenText
from pipeline.storage.blob import Blob

_TAIL_S = 1.0
_PACKET_S = 0.2
_TAGS_BYTES = 1024
_INCONCLUSIVE = (*TRANSIENT_KINDS, "limit")
"""Kinds of failure that do not show what the content is. No other decoder is tried after them."""


def open_media(blob: Blob, hint: Modality | None, config: DecodersConfig) -> OpenMedia:
    """See ``pipeline.decoders.open_media``."""
    config.check_bytes(blob.size())
    head = blob.read(HEAD_BYTES)
    if not head:
        raise SampleError("empty", "zero bytes")
    shape = sniff(head)
    if shape is None and (other := not_media(head, blob)) is not None:
        raise SampleError("unsupported", f"{other}, no media")
    try:
        if shape == "image":
            media: OpenMedia = OpenImage(blob, config.image, is_known=True)
        else:
            media = _open(blob, shape or hint, config, is_known=shape is not None)
    except SampleError as error:
        if shape is None and hint != "text" and error.kind == "corrupt":
            raise SampleError("unsupported", error.message) from error
        raise
    media.sound_limits = config.audio
    try:
        config.check_seconds(max((span.end_s for span in media.info.spans.values() if span is not None), default=0.0))
    except SampleError:
        media.close()
        raise
    return media


def _open(blob: Blob, shape: Shape | Modality | None, config: DecodersConfig, is_known: bool) -> OpenMedia:
    if shape == "image":
        return OpenImage(blob, config.image, is_known=False)
    if shape == "text":
        return OpenText(blob, config.text)
    if shape == "audio":
        return _open_joined(blob, config, is_known) or _open_sound(blob, config, is_known)
    if shape is not None:
        return OpenContainer(blob, config, is_known)
    return _open_unknown(blob, config, is_known)


def _open_joined(blob: Blob, config: DecodersConfig, is_known: bool) -> OpenMedia | None:
    """Opens a file of several concatenated sound streams; None if it is no such file."""
    parts = parts_of(blob)
    if not parts:
        return None
    config.check_streams(len(parts))
    with _open_sound(parts[0], config, is_known) as first:
        if list(first.info.spans) != ["audio"]:
            return None
        format = first.info.format
    return OpenSound(JoinedSamples(parts, lambda part: _PartSamples(_open_sound(part, config, is_known))), format)


class _PartSamples:
    """The samples of an open file. ``close`` closes the file."""

    def __init__(self, media: OpenMedia) -> None:
        self.media, self.samples = media, media.sound()
        self.rate, self.span, self.read = self.samples.rate, self.samples.span, self.samples.read

    def close(self) -> None:
        self.media.close()


def _open_sound(blob: Blob, config: DecodersConfig, is_known: bool) -> OpenMedia:
    """Opens a sound file with soundfile, or with PyAV if soundfile refuses it. If both refuse, raises both messages."""
    if not config.audio.soundfile:
        return OpenContainer(blob, config, is_known)
    try:
        samples = SoundfileSamples(blob)
        config.audio.check_rate(samples.rate)
        if _has_other_length(blob, samples):
            samples.close()
            return OpenContainer(blob, config, is_known)
        return OpenSound(samples, samples.format.lower())
    except SampleError as first:
        if first.kind in TRANSIENT_KINDS:
            raise
        try:
            return OpenContainer(blob, config, is_known)
        except SampleError as second:
            if second.kind in _INCONCLUSIVE:
                raise
            raise SampleError(first.kind, f"{first.message}; {second.message}") from second


def _has_other_length(blob: Blob, samples: SoundfileSamples) -> bool:
    """True if there is more sound than libsndfile reads, or less.

    More, because it stops where a header says. Less, because it computes the length of an MP3 without a header frame
    from the first bit rate.
    """
    after = after_mp3(blob) if samples.format == "MP3" else None
    if samples.format not in ("FLAC", "MP3") or (after is not None and after <= _TAGS_BYTES):
        return False
    try:
        with closing(Container(blob)) as container:
            if samples.format == "FLAC":
                return container.sound_after(samples.span.end_s - _TAIL_S) - samples.span.end_s > _PACKET_S
            more = container.sound_after(0.0) - samples.span.end_s
            return more > _PACKET_S or (after is None and more < -_PACKET_S)
    except SampleError as error:
        if error.kind in TRANSIENT_KINDS:
            raise
        return False  # libsndfile reads files that FFmpeg refuses


def _open_unknown(blob: Blob, config: DecodersConfig, is_known: bool) -> OpenMedia:
    """Opens a file that neither its name nor its first bytes describe: as a container, or else as text."""
    try:
        return OpenContainer(blob, config, is_known)
    except SampleError as first:
        if first.kind in _INCONCLUSIVE:
            raise
        message = first.message if first.kind == "unsupported" else "no decoder knows this content"
    try:
        return OpenText(blob, config.text)
    except SampleError as error:
        if error.kind in (*_INCONCLUSIVE, "unsupported"):
            raise
        raise SampleError("unsupported", message) from error


__all__ = ["OpenMedia", "open_media"]
