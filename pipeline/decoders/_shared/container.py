"""Media containers through PyAV: their streams, and the exact time span of each.

Durations in headers are often wrong. The end of a stream is therefore found by reading packets, without decoding: only
those at the end of the file if the container has an index, otherwise all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.core.errors import SampleError, describe
from pipeline.core.media import Modality, Span
from pipeline.decoders._shared.demuxer import check_format, decoding, open_av
from pipeline.decoders._shared.streams import (
    best_stream,
    is_cover,
    is_decodable,
    packet_spans,
    start_seconds,
)
from pipeline.storage.blob import Blob

if TYPE_CHECKING:
    import av

_INDEXED = ("mov", "matroska")
_TAIL_S = 5.0
_COARSEST_TICK_S = 0.001
"""Tick of Matroska. A coarser clock ticks once per picture (AVI) and does not round the pictures' times."""
_MAX_DAMAGED = 10_000


@dataclass(frozen=True)
class Damage:
    """A packet that could not be read or decoded."""

    time_s: float
    """NaN if it has no time."""
    message: str
    """The decoder's error."""


class Container:
    """An open container. Times are seconds from its start.

    Args:
        allow_guess: False: raises ``SampleError`` if FFmpeg only guesses the format.

    Raises:
        SampleError: ``empty``, ``corrupt``, ``unsupported``.
    """

    def __init__(self, blob: Blob, allow_guess: bool = True) -> None:
        import av

        av.logging.set_level(av.logging.PANIC)
        if blob.size() == 0:
            raise SampleError("empty", "zero bytes")
        self.blob = blob
        self._file = blob.open()
        try:
            if not allow_guess:
                check_format(self._file)
            self.av: av.container.InputContainer = self._open()
        except SampleError:
            self._file.close()
            raise
        self.format = str(self.av.format.name)
        self.video: Any = best_stream(
            self.av, "video", [s for s in self.av.streams.video if not is_cover(s) and is_decodable(s)]
        )
        self.audio: Any = best_stream(self.av, "audio", [s for s in self.av.streams.audio if is_decodable(s)])
        undecodable: dict[Modality, bool] = {
            "video": self.video is None and not all(is_cover(one) for one in self.av.streams.video),
            "audio": self.audio is None and len(self.av.streams.audio) > 0,
        }
        self.unsupported = frozenset(modality for modality, is_there in undecodable.items() if is_there)
        self.start_s = start_seconds(self.av)

    def _open(self) -> av.container.InputContainer:
        with decoding():
            container = open_av(self._file)
            for stream in container.streams.video:
                if is_decodable(stream):
                    stream.codec_context.thread_count = 1  # there is one process per core already
            return container

    @property
    def guesses_times(self) -> bool:
        """True for elementary streams (MP3, ADTS, FLAC...): after a seek their times are estimates."""
        from av.format import Flags

        return bool(self.av.format.flags & Flags.generic_index.value)

    @property
    def has_times(self) -> bool:
        """False for elementary video streams (.h264): times are computed from the frame rate and frame numbers."""
        from av.format import Flags

        return not self.av.format.flags & Flags.no_timestamps.value

    @property
    def is_indexed(self) -> bool:
        """True for formats whose packets hold whole pictures with their presentation times."""
        return self.format.startswith(_INDEXED)

    @property
    def video_streams(self) -> int:
        """Number of video streams, including cover art."""
        return len(self.av.streams.video)

    def spans(self) -> dict[Modality, Span]:
        """Time spans of the video and the audio stream, by their packets.

        Raises:
            SampleError: ``unsupported`` (no stream that can be decoded), ``empty`` (no packets).
        """
        if not self._streams():
            raise SampleError("unsupported", f"no video or audio stream that can be decoded in {self.format}")
        with decoding():
            times = self._scan()
        if "audio" in times:
            first, end = times["audio"]
            first_sample = self._first_sample_time()
            times["audio"] = (first if first_sample is None else first_sample, end)
        if self.start_s is None:
            self.start_s = min((first for first, _ in times.values()), default=0.0)
        found: dict[Modality, Span] = {}
        streams = self._streams()
        for modality, (first, end) in times.items():
            tick_s = min(float(streams[modality].time_base), _COARSEST_TICK_S)
            span = Span(max(0.0, first - self.start_s), end - self.start_s, tick_s)
            if span.end_s > span.start_s:
                found[modality] = span
        if not found:
            raise SampleError("empty", f"no packets to play in {self.format}")
        return found

    def _first_sample_time(self) -> float | None:
        """Time of the first decoded sample; None if unknown. Later than the first packet, if that is encoder delay."""
        import av

        self.rewind(None)
        try:
            frame = next(self.av.decode(self.audio), None)
        except (av.FFmpegError, ValueError):
            return None  # decoding the sound will raise it; the video may be intact
        return None if frame is None or frame.time is None else float(frame.time)

    def decoded(self, stream: Any, filter_packets: Callable[[Iterator[Any]], Iterator[Any]] = iter) -> Iterator[Any]:
        """Yields the frames of a stream from the current position on.

        Yields a ``Damage`` with an absolute time for each packet that cannot be decoded.

        Args:
            filter_packets: iterator over packets -> iterator over those to decode.
        """
        import av

        failed = 0
        while failed <= _MAX_DAMAGED:
            try:
                for packet in filter_packets(self.av.demux(stream)):
                    try:
                        frames = packet.decode()
                    except av.EOFError:
                        return
                    except av.FFmpegError as error:
                        failed += 1
                        stamp = packet.pts if packet.pts is not None else packet.dts
                        yield Damage(np.nan if stamp is None else float(stamp * packet.time_base), describe(error))
                        if failed > _MAX_DAMAGED:
                            break
                        continue
                    failed = 0 if frames else failed
                    yield from frames
                else:
                    return
            except av.EOFError:
                return
            except av.FFmpegError as error:  # damage in the container itself: continue after it
                failed += 1
                yield Damage(np.nan, describe(error))

    def sound_after(self, time_s: float) -> float:
        """End of the last audio packet, in absolute seconds. Reads the packets from ``time_s`` (absolute) on."""
        with decoding():
            return self._packets(max(0.0, time_s)).get("audio", (0.0, 0.0))[1]

    def _streams(self) -> dict[Modality, Any]:
        """The streams of the container as it is open now. ``reopen`` replaces them."""
        streams: dict[Modality, Any] = {"video": self.video, "audio": self.audio}
        return {modality: stream for modality, stream in streams.items() if stream is not None}

    def _scan(self) -> dict[Modality, tuple[float, float]]:
        """First presentation time and end of the last packet of each stream, absolute seconds."""
        streams = self._streams()
        if self.is_indexed and self.av.duration:
            starts = {m: s.start_time * float(s.time_base) for m, s in streams.items() if s.start_time is not None}
            ends = self._packets(max(0.0, self.av.duration / 1_000_000 - _TAIL_S) + (self.start_s or 0.0))
            if starts.keys() == ends.keys() == streams.keys():
                return {modality: (starts[modality], ends[modality][1]) for modality in streams}
        return self._packets(None)

    def _packets(self, from_s: float | None) -> dict[Modality, tuple[float, float]]:
        """First time and end of each stream, over the packets from ``from_s`` on; None: over all packets."""
        self.rewind(from_s)
        streams = self._streams()
        by_index = {stream.index: modality for modality, stream in streams.items()}
        packets = self.av.demux(list(streams.values()))
        # in Ogg the duration of a packet does not include its padding
        return packet_spans(packets, by_index, self.has_times, has_padding=self.format != "ogg")

    def rewind(self, to_s: float | None) -> None:
        """Seeks to the last key frame before ``to_s`` (absolute seconds); None: reopens the file at its start."""
        import av

        if to_s is not None:
            try:
                self.av.seek(int(to_s * 1_000_000), backward=True, any_frame=False)
                return
            except av.FFmpegError:
                pass  # formats without seeking: read from the start
        self.reopen()

    def reopen(self) -> None:
        """Opens the file again, at its first packet. Seeking to 0 instead loses packets in some formats."""
        video, audio = (s.index if s is not None else None for s in (self.video, self.audio))
        self.av.close()
        self._file.seek(0)
        self.av = self._open()
        self.video = None if video is None else self.av.streams[video]
        self.audio = None if audio is None else self.av.streams[audio]

    def close(self) -> None:
        self.av.close()
        self._file.close()
