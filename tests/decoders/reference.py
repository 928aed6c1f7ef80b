"""What independent eyes see: PyAV decoding a whole file in order, and clips whose every frame carries its number."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

_CELL, _BITS = 16, 4


def opened(path: Path) -> Any:
    av.logging.set_level(av.logging.PANIC)
    return av.open(str(path), metadata_errors="replace")


def start_of(path: Path) -> float:
    """The container's start, seconds."""
    with opened(path) as container:
        return (container.start_time or 0) / 1_000_000


def frames_of(path: Path, pixels: bool = False) -> list[tuple[float, float, Any]]:
    """``(time from the container's start, seconds shown, pixels)`` of every decoded frame, in order.

    Pixels are None where not asked for, and of rotated frames.
    """
    found = []
    start_s = start_of(path)
    with opened(path) as container:
        for frame in container.decode(picture_track(container)):
            shown_s = float(frame.duration * frame.time_base) if frame.duration else 0.0
            seen = pixels and not frame.rotation
            found.append((frame.time - start_s, shown_s, frame.to_ndarray(format="rgb24") if seen else None))
    return found


def picture_track(container: Any) -> Any:
    """The track that FFmpeg plays, or the first that is no cover."""
    covers = av.stream.Disposition.attached_pic
    tracks = [container.streams.best("video"), *container.streams.video]
    return next(track for track in tracks if not track.disposition & covers)


def sound_of(path: Path) -> tuple[np.ndarray, int, float, float]:
    """``(mono [n] float64, rate, first time, longest codec frame in seconds)`` of the audio stream that FFmpeg plays.

    Samples are placed one behind the other; a codec frame is what an encoder emits at once.
    """
    pieces, rate, first, longest = [], 0, None, 0
    with opened(path) as container:
        for frame in container.decode(container.streams.best("audio")):
            data = frame.to_ndarray()
            if not frame.format.is_planar:
                data = data.reshape(-1, frame.layout.nb_channels).T
            if data.dtype == np.uint8:
                data = (data.astype(np.float64) - 128) / 128
            elif data.dtype.kind == "i":
                data = data / float(2 ** (8 * data.dtype.itemsize - 1))
            pieces.append(data.astype(np.float64).mean(axis=0))
            first = frame.time if first is None else first
            rate, longest = frame.sample_rate, max(longest, frame.samples)
    return np.concatenate(pieces), rate, (first or 0.0) - start_of(path), longest / rate


def rotated_by_matrix(path: Path) -> np.ndarray:
    """The first frame, moved pixel by pixel as the raw display matrix says."""
    with opened(path) as container:
        frame = next(container.decode(video=0))
    pixels = frame.to_ndarray(format="rgb24")
    matrix = next((bytes(s) for s in frame.side_data if s.type.name == "DISPLAYMATRIX"), None)
    a, b, _, c, d, *_ = [v / 65536 for v in struct.unpack("9i", matrix)] if matrix else [1, 0, 0, 0, 1]
    y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    right, down = (a * x + c * y).astype(int), (b * x + d * y).astype(int)
    right, down = right - right.min(), down - down.min()
    turned = np.zeros((down.max() + 1, right.max() + 1, 3), np.uint8)
    turned[down, right] = pixels
    return turned


def write_numbered(
    path: Path,
    ticks: Sequence[int],
    time_base: Fraction = Fraction(1, 1000),
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    gop: int = 12,
) -> None:
    """A clip of 64x64 whose frame i shows the number i and is due at ``ticks[i]``."""
    with opened_for_writing(path) as out:
        stream = out.add_stream(codec, rate=30, options=options or {})
        stream.width, stream.height, stream.pix_fmt = _CELL * _BITS, _CELL * _BITS, "yuv420p"
        stream.time_base = stream.codec_context.time_base = time_base
        stream.codec_context.gop_size = gop
        for number, tick in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            frame.pts, frame.time_base = tick, time_base
            out.mux(stream.encode(frame))
        out.mux(stream.encode())


def damage(path: Path, *numbers: int) -> None:
    """Overwrites packets of a clip's video stream, numbered in the order of the file."""
    with opened(path) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    for number in numbers:
        at, size = places[number]
        content[at : at + size] = b"\xff" * size
    path.write_bytes(content)


def write_changing(path: Path, sizes: Sequence[tuple[int, int]]) -> None:
    """An MPEG transport stream at 25 frames a second whose frame i has the width and height ``sizes[i]``."""
    pieces, at = [], 0
    for k, (width, height) in enumerate(dict.fromkeys(sizes)):
        count = sizes.count((width, height))
        piece = path.with_suffix(f".{k}.ts")
        with opened_for_writing(piece) as out:
            stream = out.add_stream("libx264", rate=25, options={"bf": "0"})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.time_base = stream.codec_context.time_base = Fraction(1, 90_000)
            for i in range(at, at + count):
                frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), 60 * k + 60, np.uint8), format="rgb24")
                frame.pts, frame.time_base = i * 3600, Fraction(1, 90_000)
                out.mux(stream.encode(frame))
            out.mux(stream.encode())
        pieces.append(piece.read_bytes())
        at += count
    path.write_bytes(b"".join(pieces))


def opened_for_writing(path: Path) -> Any:
    # MP4 says in ticks of this when a stream starts; by default in milliseconds
    return av.open(str(path), "w", options={"movie_timescale": "90000"} if path.suffix == ".mp4" else {})


def numbered(number: int) -> np.ndarray:
    """A picture [64, 64, 3] of a 16-bit number: a white cell for a one."""
    bits = np.array([number >> k & 1 for k in range(_BITS * _BITS)], np.uint8).reshape(_BITS, _BITS)
    return np.repeat(np.kron(bits * 255, np.ones((_CELL, _CELL), np.uint8))[:, :, None], 3, axis=2)


def number_in(pixels: np.ndarray) -> int:
    """The number that a picture shows, whatever the codec did to it."""
    cells = pixels.mean(axis=2).reshape(_BITS, _CELL, _BITS, _CELL).mean(axis=(1, 3)) > 127
    return sum(1 << k for k, bit in enumerate(cells.ravel()) if bit)


def shown(times: Sequence[float], instant: float, rounding_s: float = 1e-6) -> int:
    """Index of the frame on screen at ``instant``: the last that has begun, else the first."""
    begun = [i for i, time in enumerate(times) if time - rounding_s <= instant]
    return begun[-1] if begun else 0
