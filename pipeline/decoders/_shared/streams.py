"""Properties of a container's streams and packets, as FFmpeg gives them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from pipeline.core.media import Modality

if TYPE_CHECKING:
    import av


def best_stream(container: av.container.InputContainer, kind: Literal["video", "audio"], streams: list[Any]) -> Any:
    """The stream to decode if a file has several; None if ``streams`` is empty.

    FFmpeg (``av_find_best_stream``) chooses by the streams' flags (default; not for the visually or hearing impaired),
    then by the pictures or packets read so far and the bit rate. If its choice is not in ``streams``, it is the first.
    """
    best = container.streams.best(kind) if len(streams) > 1 else None
    chosen = (one for one in streams if best is not None and one.index == best.index)
    return next(chosen, streams[0] if streams else None)


def start_seconds(container: av.container.InputContainer) -> float | None:
    """Start time of the container, seconds; None if it has none.

    FFmpeg rounds it to microseconds. The start time of the stream that begins first is exact.
    """
    if container.start_time is None:
        return None
    rounded = float(container.start_time) / 1_000_000
    starts = (
        float(one.start_time * one.time_base)
        for one in container.streams
        if one.start_time is not None and one.time_base is not None
    )
    nearest = min(starts, key=lambda start: abs(start - rounded), default=rounded)
    return nearest if abs(nearest - rounded) <= 1e-6 else rounded


def packet_spans(
    packets: Iterable[Any], modalities: dict[int, Modality], has_times: bool, has_padding: bool
) -> dict[Modality, tuple[float, float]]:
    """First time and end of the packets of each stream, absolute seconds.

    Args:
        packets: of one video and one audio stream at most.
        modalities: by the stream's index.
        has_times: False: times are the sums of the durations before.
        has_padding: True if durations of packets include samples that the encoder added.
    """
    import av

    spans: dict[Modality, tuple[float, float]] = {}
    last_end: dict[Modality, float] = {}
    try:
        for packet in packets:
            stamp = packet.pts if packet.pts is not None else packet.dts
            if packet.is_discard or packet.size == 0 or (stamp is None and has_times):
                continue
            modality = modalities[packet.stream_index]
            start = last_end.get(modality, 0.0) if stamp is None else float(stamp * packet.time_base)
            end = start + _packet_seconds(packet)
            if has_padding:
                end = max(start, end - _padding_seconds(packet))
            last_end[modality] = end
            first, last = spans.get(modality, (start, end))
            spans[modality] = (min(first, start), max(last, end))
    except av.FFmpegError:
        if not spans:
            raise
    return spans


def _packet_seconds(packet: Any) -> float:
    """Duration of a packet; computed from the frame rate if the packet has none."""
    if packet.duration:
        return float(packet.duration * packet.stream.time_base)
    rate = getattr(packet.stream, "average_rate", None) or getattr(packet.stream, "guessed_rate", None)
    return float(1 / rate) if rate else 0.0


def _padding_seconds(packet: Any) -> float:
    """Duration of the samples at the end of an audio packet that the encoder added to fill it.

    Their number is a little-endian integer in the packet's side data.
    """
    if packet.stream.type != "audio" or not packet.has_sidedata("skip_samples"):
        return 0.0
    counts = bytes(packet.get_sidedata("skip_samples"))
    rate = packet.stream.codec_context.sample_rate
    return int.from_bytes(counts[4:8], "little") / rate if rate else 0.0


def is_cover(stream: Any) -> bool:
    """True for cover art, which is stored as a video stream."""
    import av

    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def is_decodable(stream: Any) -> bool:
    """True if FFmpeg has a decoder for the stream."""
    return getattr(stream, "codec_context", None) is not None
