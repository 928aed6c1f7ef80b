"""Media containers through PyAV: which streams there are and exactly which time each covers.

Header durations lie, so the end of a stream is found by reading packets (no decoding): the tail only
where the container has an index, all of it elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline.core.errors import SampleError, describe
from pipeline.core.media import Modality, Span
from pipeline.decoders._shared.demuxer import check_format, decoding, open_av
from pipeline.storage.blob import Blob

if TYPE_CHECKING:
    import av

_INDEXED = ("mov", "matroska")
_TAIL_S = 5.0
_COARSEST_TICK_S = 0.001
"""Matroska's. A clock that ticks once a picture (AVI's) rounds none of their times."""
_MAX_DAMAGED = 10_000


@dataclass(frozen=True)
class Damage:
    """Something that could not be read or decoded, in the decoder's words; ``time_s`` is NaN where it has no time."""

    time_s: float
    words: str


class Container:
    """An open container. Times are seconds from its start.

    Args:
        guess: True: whatever FFmpeg takes it for; False: what it is sure of.
    """

    def __init__(self, blob: Blob, guess: bool = True) -> None:
        import av

        av.logging.set_level(av.logging.PANIC)
        if blob.size() == 0:
            raise SampleError("empty", "zero bytes")
        self.blob = blob
        self._file = blob.open()
        try:
            if not guess:
                check_format(self._file)
            self.av: av.container.InputContainer = self._opened()
        except SampleError:
            self._file.close()
            raise
        self.format = str(self.av.format.name)
        self.video: Any = self._best("video", [s for s in self.av.streams.video if not _is_cover(s) and _readable(s)])
        self.audio: Any = self._best("audio", [s for s in self.av.streams.audio if _readable(s)])
        unreadable: dict[Modality, bool] = {
            "video": self.video is None and not all(_is_cover(one) for one in self.av.streams.video),
            "audio": self.audio is None and len(self.av.streams.audio) > 0,
        }
        self.unsupported = frozenset(modality for modality, is_there in unreadable.items() if is_there)
        self.start_s = self._first_s()

    def _best(self, kind: Literal["video", "audio"], streams: list[Any]) -> Any:
        """The stream that FFmpeg plays where a file has several, as ``av_find_best_stream`` chooses it: by its flags
        (default; not for the visually or hearing impaired), then by its pictures or packets seen so far and bit rate.
        The first of ``streams`` where that choice is none of them; None if there are none."""
        best = self.av.streams.best(kind) if len(streams) > 1 else None
        chosen = (one for one in streams if best is not None and one.index == best.index)
        return next(chosen, streams[0] if streams else None)

    def _first_s(self) -> float | None:
        """When the container starts. FFmpeg rounds that to microseconds; the stream that starts it says it exactly."""
        if self.av.start_time is None:
            return None
        rounded = float(self.av.start_time) / 1_000_000
        starts = (
            float(one.start_time * one.time_base)
            for one in self.av.streams
            if one.start_time is not None and one.time_base is not None
        )
        nearest = min(starts, key=lambda start: abs(start - rounded), default=rounded)
        return nearest if abs(nearest - rounded) <= 1e-6 else rounded

    def _opened(self) -> av.container.InputContainer:
        with decoding():
            container = open_av(self._file)
            for stream in container.streams.video:
                if _readable(stream):
                    stream.codec_context.thread_count = 1  # a process a core: more would only wait for each other
            return container

    @property
    def guesses_times(self) -> bool:
        """True for bare streams (MP3, ADTS, FLAC...): after a seek their times are estimates."""
        from av.format import Flags

        return bool(self.av.format.flags & Flags.generic_index.value)

    @property
    def has_times(self) -> bool:
        """False for bare video streams (.h264): their frames are counted, at the rate that the stream itself says."""
        from av.format import Flags

        return not self.av.format.flags & Flags.no_timestamps.value

    @property
    def indexed(self) -> bool:
        """True for formats whose packets hold whole pictures and say when each is shown."""
        return self.format.startswith(_INDEXED)

    @property
    def pictures(self) -> int:
        """How many video streams there are, cover art counted."""
        return len(self.av.streams.video)

    def spans(self) -> dict[Modality, Span]:
        """The time that the video and the audio stream cover, by their packets.

        Raises:
            SampleError: ``unsupported`` (no stream that can be decoded), ``empty`` (no packets).
        """
        if not self._streams():
            raise SampleError("unsupported", f"no video or audio stream that can be decoded in {self.format}")
        with decoding():
            times = self._scan()
        if "audio" in times:
            first, end = times["audio"]
            heard = self._first_sound()
            times["audio"] = (first if heard is None else heard, end)
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

    def _first_sound(self) -> float | None:
        """When the first sample is heard: decoders drop the priming of the first packets. None: no telling."""
        import av

        self.rewind(None)
        try:
            frame = next(self.av.decode(self.audio), None)
        except (av.FFmpegError, ValueError):
            return None  # the sound fails when it is asked for, not the pictures beside it
        return None if frame is None or frame.time is None else float(frame.time)

    def decoded(self, stream: Any, through: Callable[[Iterator[Any]], Iterator[Any]] = iter) -> Iterator[Any]:
        """The frames of a stream from here on; a ``Damage`` (absolute time) for each packet that cannot be decoded.
        Its packets go ``through`` a function before they are decoded."""
        import av

        failed = 0
        while failed <= _MAX_DAMAGED:
            try:
                for packet in through(self.av.demux(stream)):
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
            except av.FFmpegError as error:  # the container itself: read on behind it
                failed += 1
                yield Damage(np.nan, describe(error))

    def sound_after(self, time_s: float) -> float:
        """The end of the last audio packet, looked for from ``time_s`` (absolute seconds) on."""
        with decoding():
            return self._packets(max(0.0, time_s)).get("audio", (0.0, 0.0))[1]

    def _streams(self) -> dict[Modality, Any]:
        """The streams of the container as it is open now: reopening makes them anew."""
        streams: dict[Modality, Any] = {"video": self.video, "audio": self.audio}
        return {modality: stream for modality, stream in streams.items() if stream is not None}

    def _scan(self) -> dict[Modality, tuple[float, float]]:
        """Per stream the first presentation time and the end of the last packet, absolute seconds."""
        streams = self._streams()
        if self.format.startswith(_INDEXED) and self.av.duration:
            starts = {m: s.start_time * float(s.time_base) for m, s in streams.items() if s.start_time is not None}
            ends = self._packets(max(0.0, self.av.duration / 1_000_000 - _TAIL_S) + (self.start_s or 0.0))
            if starts.keys() == ends.keys() == streams.keys():
                return {modality: (starts[modality], ends[modality][1]) for modality in streams}
        return self._packets(None)

    def _packets(self, from_s: float | None) -> dict[Modality, tuple[float, float]]:
        """First time and end of each stream, over the packets from ``from_s`` on (None: all of them)."""
        import av

        found: dict[Modality, tuple[float, float]] = {}
        counted: dict[Modality, float] = {}
        self.rewind(from_s)
        streams = self._streams()
        by_index = {stream.index: modality for modality, stream in streams.items()}
        try:
            for packet in self.av.demux(list(streams.values())):
                stamp = packet.pts if packet.pts is not None else packet.dts
                if packet.is_discard or packet.size == 0 or (stamp is None and self.has_times):
                    continue
                modality = by_index[packet.stream_index]
                start = counted.get(modality, 0.0) if stamp is None else float(stamp * packet.time_base)
                end = start + packet_seconds(packet)
                if self.format != "ogg":  # there the duration is already less what its decoder is told to drop
                    end = max(start, end - _padding_seconds(packet))
                counted[modality] = end
                first, last = found.get(modality, (start, end))
                found[modality] = (min(first, start), max(last, end))
        except av.FFmpegError:
            if not found:
                raise
        return found

    def rewind(self, to_s: float | None) -> None:
        """Move to the last key frame before ``to_s`` (absolute); None: to the very start, freshly opened."""
        import av

        if to_s is not None:
            try:
                self.av.seek(int(to_s * 1_000_000), backward=True, any_frame=False)
                return
            except av.FFmpegError:
                pass  # formats without seeking: read on from the start
        self.reopen()

    def reopen(self) -> None:
        """Back to the first packet, by opening the file anew: seeking to 0 loses packets in some formats."""
        video, audio = (s.index if s is not None else None for s in (self.video, self.audio))
        self.av.close()
        self._file.seek(0)
        self.av = self._opened()
        self.video = None if video is None else self.av.streams[video]
        self.audio = None if audio is None else self.av.streams[audio]

    def close(self) -> None:
        self.av.close()
        self._file.close()


def packet_seconds(packet: Any) -> float:
    """How long a packet lasts; by the frame rate where it does not say."""
    if packet.duration:
        return float(packet.duration * packet.stream.time_base)
    rate = getattr(packet.stream, "average_rate", None) or getattr(packet.stream, "guessed_rate", None)
    return float(1 / rate) if rate else 0.0


def _padding_seconds(packet: Any) -> float:
    """Sound at the end of a packet that an encoder added to fill it: a little-endian count of samples."""
    if packet.stream.type != "audio" or not packet.has_sidedata("skip_samples"):
        return 0.0
    counts = bytes(packet.get_sidedata("skip_samples"))
    rate = packet.stream.codec_context.sample_rate
    return int.from_bytes(counts[4:8], "little") / rate if rate else 0.0


def _is_cover(stream: Any) -> bool:
    """Cover art looks like a video stream."""
    import av

    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _readable(stream: Any) -> bool:
    return getattr(stream, "codec_context", None) is not None
