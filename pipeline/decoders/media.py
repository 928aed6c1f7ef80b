"""An open file of any modality: what it holds, and methods that decode it."""

from __future__ import annotations

import os
import shutil
import tempfile
from types import TracebackType
from typing import IO, Self

from pipeline.core.errors import SampleError
from pipeline.core.media import Frames, Image, MediaInfo, Modality, Sampling, Span, Text, Waveform
from pipeline.decoders import video_decord, video_pyav
from pipeline.decoders._shared.container import Container
from pipeline.decoders._shared.container_samples import ContainerSamples
from pipeline.decoders._shared.samples import Samples
from pipeline.decoders._shared.sniff import HEAD_BYTES, sniff
from pipeline.decoders.audio import AudioConfig, waveform
from pipeline.decoders.config import DecodersConfig
from pipeline.decoders.image import ImageConfig, ImageMedia, check_bytes
from pipeline.decoders.text import TextDecoderConfig, TextMedia
from pipeline.storage.blob import Blob
from pipeline.storage.ranges import source_errors


class OpenMedia:
    """Base class of open files; a context manager.

    ``info`` states the modalities that the file holds, by its content. The method of a modality that it does not hold
    raises ``SampleError`` (``unsupported``).
    """

    info: MediaInfo
    sound_limits = AudioConfig()

    def text(self, start_s: float | None, end_s: float | None) -> Text:
        """The words of ``[start_s, end_s)``, one segment per line; all words if the times are None."""
        raise SampleError("unsupported", f"{self.info.format} holds no text")

    def image(self) -> Image:
        raise SampleError("unsupported", f"{self.info.format} holds no picture")

    def frames(self, sampling: Sampling, start_s: float, end_s: float) -> Frames:
        """The sampled pictures of ``[start_s, end_s)`` with their presentation times."""
        raise SampleError("unsupported", f"{self.info.format} holds no video")

    def sound(self) -> Samples:
        """All samples of the sound at its own rate, which are read piece by piece."""
        raise SampleError("unsupported", f"{self.info.format} holds no sound")

    def waveform(self, sample_rate: int, start_s: float, end_s: float) -> Waveform:
        """The sound of ``[start_s, end_s)``, mono, at ``sample_rate`` Hz."""
        samples = self.sound()
        seconds = min(end_s, samples.span.end_s) - max(start_s, samples.span.start_s)
        self.sound_limits.check_window(seconds, max(samples.rate, sample_rate))
        return waveform(samples, sample_rate, start_s, end_s)

    def check(self) -> None:
        """Runs the checks that opening postponed. Raises ``SampleError`` for a file that decoding refuses."""

    def close(self) -> None:
        """Releases files and buffers."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class OpenText(OpenMedia):
    """A text file."""

    def __init__(self, blob: Blob, config: TextDecoderConfig) -> None:
        self.media = TextMedia(blob, config)
        self.info = self.media.info

    def text(self, start_s: float | None, end_s: float | None) -> Text:
        return self.media.text(start_s, end_s)


class OpenImage(OpenMedia):
    """A picture.

    Args:
        is_known: True if a magic number says that it is a picture. It is then read only when it is decoded or checked;
            otherwise the constructor reads it.
    """

    def __init__(self, blob: Blob, config: ImageConfig, is_known: bool) -> None:
        self.blob, self.config = blob, config
        check_bytes(blob, config)
        self.media = None if is_known else ImageMedia(blob, config)
        self.info = self.media.info if self.media else MediaInfo("image", {"image": None})

    def check(self) -> None:
        self.media = self.media or ImageMedia(self.blob, self.config)

    def image(self) -> Image:
        self.media = self.media or ImageMedia(self.blob, self.config)
        return self.media.image()

    def close(self) -> None:
        if self.media is not None:
            self.media.close()


class OpenSound(OpenMedia):
    """A sound file."""

    def __init__(self, samples: Samples, format: str) -> None:
        self.samples = samples
        self.info = MediaInfo(format, {"audio": samples.span})

    def sound(self) -> Samples:
        return self.samples

    def close(self) -> None:
        self.samples.close()


class OpenContainer(OpenMedia):
    """A container with video and audio streams. Each reader opens it for itself, because readers change its position.

    Args:
        is_known: True if the file's first bytes say what it is. Otherwise a format that FFmpeg only guesses is refused.
    """

    def __init__(self, blob: Blob, config: DecodersConfig, is_known: bool) -> None:
        self.blob, self.config = blob, config
        self.local_copy: IO[bytes] | None = None
        self.containers = [Container(blob, allow_guess=is_known)]
        try:
            config.check_streams(len(self.containers[0].av.streams))
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
            samples = ContainerSamples(self._open_container(), self._span("audio"))
            self.config.audio.check_rate(samples.rate)
            self.samples = samples
        return self.samples

    def _open_video(self) -> video_decord.DecordReader | video_pyav.PyavReader:
        span, container, config = self._span("video"), self._open_container(), self.config.video
        context = container.video.codec_context
        config.check_frame(context.width or 0, context.height or 0)
        if config.kind == "pyav":
            return video_pyav.PyavReader(container, span, config)
        self.local_copy = self._open_locally()
        # decord's FFmpeg would open the files that a list names, even if this one only claims to be a container
        if sniff(os.pread(self.local_copy.fileno(), HEAD_BYTES, 0)) != "container":
            return video_pyav.PyavReader(container, span, config)
        return video_decord.DecordReader(f"/proc/self/fd/{self.local_copy.fileno()}", container, span, config)

    def _span(self, modality: Modality) -> Span:
        span = self.info.spans.get(modality)
        if span is None:
            raise SampleError("unsupported", f"{self.info.format} holds no {modality} stream")
        return span

    def _open_container(self) -> Container:
        """Opens the file for another reader, with the same time zero as the first container."""
        container = Container(self.blob)
        container.start_s = self.containers[0].start_s
        self.containers.append(container)
        return container

    def _open_locally(self) -> IO[bytes]:
        """The file, open on this machine, because decord reads no remote files by ranges.

        A remote file is copied to a temporary file without a name, which the system deletes when this process ends.
        """
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
        self.reader = None  # decord keeps the copy open too
        if self.local_copy is not None:
            self.local_copy.close()
