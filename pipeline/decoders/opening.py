"""An open file of any modality, chosen by content."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import closing
from dataclasses import dataclass, replace
from types import TracebackType
from typing import IO, Self

from pipeline.core.errors import TRANSIENT_KINDS, SampleError
from pipeline.core.media import Frames, Image, MediaInfo, Modality, Sampling, Span, Text, Waveform
from pipeline.decoders import video_decord, video_pyav
from pipeline.decoders._shared.bounds import FileBounds
from pipeline.decoders._shared.container import Container
from pipeline.decoders._shared.joined import JoinedSamples, after_mp3, parts_of
from pipeline.decoders._shared.not_media import not_media
from pipeline.decoders._shared.samples import ContainerSamples, Samples, SoundfileSamples
from pipeline.decoders._shared.sniff import HEAD_BYTES, Shape, sniff
from pipeline.decoders.audio import AudioConfig, waveform
from pipeline.decoders.image import ImageConfig, ImageMedia, check_bytes
from pipeline.decoders.text import TextDecoderConfig, TextMedia
from pipeline.storage.blob import Blob
from pipeline.storage.ranges import source_errors

_TAIL_S = 1.0
_PACKET_S = 0.2
_TAGS_BYTES = 1024
_SAYS_NOTHING = (*TRANSIENT_KINDS, "limit")
"""Kinds of failure after which no other decoder may guess what the content is."""


@dataclass(frozen=True)
class Opening:
    """How files are opened: the decoders' sections of the config."""

    text: TextDecoderConfig
    image: ImageConfig
    video: video_decord.Config | video_pyav.Config
    audio: AudioConfig
    bounds: FileBounds
    known: bool = False
    """Whether the file's first bytes say what it is. Else its format must be more than a guess of FFmpeg's."""


class OpenMedia:
    """An open file; a context manager. ``info`` says what it holds, by content.

    A method for a modality that the file does not hold raises ``SampleError``.
    """

    info: MediaInfo
    sound_limits = AudioConfig()

    def text(self, start_s: float | None, end_s: float | None) -> Text:
        """The words of ``[start_s, end_s)``, a segment a line; all of them where times are None."""
        raise SampleError("unsupported", f"{self.info.format} holds no text")

    def image(self) -> Image:
        raise SampleError("unsupported", f"{self.info.format} holds no picture")

    def frames(self, sampling: Sampling, start_s: float, end_s: float) -> Frames:
        """The sampled pictures of ``[start_s, end_s)`` with their own times."""
        raise SampleError("unsupported", f"{self.info.format} holds no video")

    def sound(self) -> Samples:
        """All sound at its own rate, to be read by pieces."""
        raise SampleError("unsupported", f"{self.info.format} holds no sound")

    def waveform(self, sample_rate: int, start_s: float, end_s: float) -> Waveform:
        """The sound of ``[start_s, end_s)``, mono, at ``sample_rate``."""
        samples = self.sound()
        seconds = min(end_s, samples.span.end_s) - max(start_s, samples.span.start_s)
        self.sound_limits.check_window(seconds, max(samples.rate, sample_rate))
        return waveform(samples, sample_rate, start_s, end_s)

    def check(self) -> None:
        """Looks at what was left for later. Raises what decoding would refuse at once."""

    def close(self) -> None:
        """Give back what is held open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _OpenText(OpenMedia):
    def __init__(self, blob: Blob, config: TextDecoderConfig) -> None:
        self.media = TextMedia(blob, config)
        self.info = self.media.info

    def text(self, start_s: float | None, end_s: float | None) -> Text:
        return self.media.text(start_s, end_s)


class _OpenImage(OpenMedia):
    """A picture by its magic number (``known``): it is read when it is asked for, once; any other at once."""

    def __init__(self, blob: Blob, config: ImageConfig, known: bool) -> None:
        self.blob, self.config = blob, config
        check_bytes(blob, config)
        self.media = None if known else ImageMedia(blob, config)
        self.info = self.media.info if self.media else MediaInfo("image", {"image": None})

    def check(self) -> None:
        self.media = self.media or ImageMedia(self.blob, self.config)

    def image(self) -> Image:
        self.media = self.media or ImageMedia(self.blob, self.config)
        return self.media.image()

    def close(self) -> None:
        if self.media is not None:
            self.media.close()


class _OpenSound(OpenMedia):
    def __init__(self, samples: Samples, format: str) -> None:
        self.samples = samples
        self.info = MediaInfo(format, {"audio": samples.span})

    def sound(self) -> Samples:
        return self.samples

    def close(self) -> None:
        self.samples.close()


class _OpenContainer(OpenMedia):
    """Video and audio streams. Each reader has a container of its own, so that they do not move each other."""

    def __init__(self, blob: Blob, how: Opening) -> None:
        self.blob, self.video, self.audio = blob, how.video, how.audio
        self.copy: IO[bytes] | None = None
        self.containers = [Container(blob, guess=how.known)]
        try:
            how.bounds.check_streams(len(self.containers[0].av.streams))
            spans: dict[Modality, Span | None] = dict(self.containers[0].spans())
        except BaseException:
            self.close()
            raise
        self.info = MediaInfo(self.containers[0].format, spans, unsupported=self.containers[0].unsupported)
        self.reader: video_decord.DecordReader | video_pyav.PyavReader | None = None
        self.samples: Samples | None = None

    def frames(self, sampling: Sampling, start_s: float, end_s: float) -> Frames:
        if self.reader is None:
            self.reader = self._open_video()
        return self.reader.frames(sampling, start_s, end_s)

    def sound(self) -> Samples:
        if self.samples is None:
            samples = ContainerSamples(self._container(), self._span("audio"))
            self.audio.check_rate(samples.rate)
            self.samples = samples
        return self.samples

    def _open_video(self) -> video_decord.DecordReader | video_pyav.PyavReader:
        span, container = self._span("video"), self._container()
        context = container.video.codec_context
        self.video.check_frame(context.width or 0, context.height or 0)
        if self.video.kind == "pyav":
            return video_pyav.PyavReader(container, span, self.video)
        self.copy = self._local()
        # decord's own FFmpeg would follow a list of other files that calls itself a container
        if sniff(os.pread(self.copy.fileno(), HEAD_BYTES, 0)) != "container":
            return video_pyav.PyavReader(container, span, self.video)
        return video_decord.DecordReader(f"/proc/self/fd/{self.copy.fileno()}", container, span, self.video)

    def _span(self, modality: Modality) -> Span:
        span = self.info.spans.get(modality)
        if span is None:
            raise SampleError("unsupported", f"{self.info.format} holds no {modality} stream")
        return span

    def _container(self) -> Container:
        """A container of one's own, on the clock of the first."""
        container = Container(self.blob)
        container.start_s = self.containers[0].start_s
        self.containers.append(container)
        return container

    def _local(self) -> IO[bytes]:
        """The file, open on this machine: decord reads nothing else by ranges. Of a remote file a copy without a name,
        which goes with this process, however that ends."""
        file = self.blob.open()
        if self.blob.local:
            return file
        copy = tempfile.TemporaryFile()  # noqa: SIM115  # `close` closes it
        with source_errors(self.blob.uri), file:
            shutil.copyfileobj(file, copy, 1 << 20)
            copy.flush()
        return copy

    def close(self) -> None:
        for container in self.containers:
            container.close()
        self.reader = None  # decord holds the copy open too
        if self.copy is not None:
            self.copy.close()


def open_media(blob: Blob, hint: Modality | None, how: Opening) -> OpenMedia:
    """See ``pipeline.decoders.open_media``."""
    how.bounds.check_bytes(blob.size())
    head = blob.read(HEAD_BYTES)
    if not head:
        raise SampleError("empty", "zero bytes")
    known = sniff(head)
    if known is None and (other := not_media(head, blob)) is not None:
        raise SampleError("unsupported", f"{other}, no media")
    how = replace(how, known=known is not None)
    try:
        if known == "image":
            media: OpenMedia = _OpenImage(blob, how.image, known=True)
        else:
            media = _open(blob, known or hint, how)
    except SampleError as error:
        if known is None and hint != "text" and error.kind == "corrupt":
            raise SampleError("unsupported", error.message) from error
        raise
    media.sound_limits = how.audio
    try:
        how.bounds.check_seconds(
            max((span.end_s for span in media.info.spans.values() if span is not None), default=0.0)
        )
    except SampleError:
        media.close()
        raise
    return media


def _open(blob: Blob, shape: Shape | Modality | None, how: Opening) -> OpenMedia:
    if shape == "image":
        return _OpenImage(blob, how.image, known=False)
    if shape == "text":
        return _OpenText(blob, how.text)
    if shape == "audio":
        return _open_joined(blob, how) or _open_sound(blob, how)
    if shape is not None:
        return _OpenContainer(blob, how)
    return _open_unknown(blob, how)


def _open_joined(blob: Blob, how: Opening) -> OpenMedia | None:
    """A file of several sound streams, one after the other; None if it is no such file."""
    parts = parts_of(blob)
    if not parts:
        return None
    how.bounds.check_streams(len(parts))
    with _open_sound(parts[0], how) as first:
        if list(first.info.spans) != ["audio"]:
            return None
        format = first.info.format
    return _OpenSound(JoinedSamples(parts, lambda part: _PartSamples(_open_sound(part, how))), format)


class _PartSamples:
    """The sound of an open file, which it closes."""

    def __init__(self, media: OpenMedia) -> None:
        self.media, self.samples = media, media.sound()
        self.rate, self.span, self.read = self.samples.rate, self.samples.span, self.samples.read

    def close(self) -> None:
        self.media.close()


def _open_sound(blob: Blob, how: Opening) -> OpenMedia:
    """soundfile first; where it refuses, PyAV has the last word, and soundfile's is told if both refuse."""
    if not how.audio.soundfile:
        return _OpenContainer(blob, how)
    try:
        samples = SoundfileSamples(blob)
        how.audio.check_rate(samples.rate)
        if _goes_on(blob, samples):
            samples.close()
            return _OpenContainer(blob, how)
        return _OpenSound(samples, samples.format.lower())
    except SampleError as first:
        if first.kind in TRANSIENT_KINDS:
            raise
        try:
            return _OpenContainer(blob, how)
        except SampleError as second:
            if second.kind in _SAYS_NOTHING:
                raise
            raise SampleError(first.kind, f"{first.message}; {second.message}") from second


def _goes_on(blob: Blob, samples: SoundfileSamples) -> bool:
    """Whether there is more sound than libsndfile sees (it stops where a header says), or less: without such a header
    it takes the first bit rate of an MP3 for that of all."""
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
        return False  # libsndfile reads on past what FFmpeg refuses


def _open_unknown(blob: Blob, how: Opening) -> OpenMedia:
    """A file that neither its name nor its first bytes explain."""
    try:
        return _OpenContainer(blob, how)
    except SampleError as first:
        if first.kind in _SAYS_NOTHING:
            raise
        words = first.message if first.kind == "unsupported" else "no decoder knows this content"
    try:
        return _OpenText(blob, how.text)
    except SampleError as error:
        if error.kind in (*_SAYS_NOTHING, "unsupported"):
            raise
        raise SampleError("unsupported", words) from error
