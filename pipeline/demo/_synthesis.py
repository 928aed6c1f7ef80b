"""Draws, synthesises and encodes the media of the demo corpus with numpy, Pillow and PyAV."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

COLORS = {
    "red": (214, 40, 40),
    "orange": (247, 127, 0),
    "yellow": (252, 211, 77),
    "green": (46, 160, 67),
    "blue": (29, 78, 216),
    "purple": (126, 34, 206),
    "white": (245, 245, 245),
    "black": (17, 17, 17),
}
SHAPES = {"circle": 220, "square": 330, "triangle": 440, "star": 550, "ring": 660, "cross": 880}
"""Shape -> pitch of its sound in Hz."""
NOTES = {"do": 261.63, "re": 293.66, "mi": 329.63, "fa": 349.23, "sol": 392.0, "la": 440.0, "ti": 493.88}
"""Note -> pitch in Hz."""
_VOWELS = {"a": (730, 1090, 2440), "e": (530, 1840, 2480), "i": (270, 2290, 3010), "o": (570, 840, 2410)}
"""Vowel -> formants in Hz, after Peterson and Barney (1952)."""
_ONSETS = {"b": 400.0, "d": 1800.0, "s": 5500.0, "m": 250.0}
"""Consonant -> centre of its noise in Hz."""
SYLLABLES = [onset + vowel for onset in _ONSETS for vowel in _VOWELS]

_CLIP_SIZE = (160, 120)
# with macroblock trees the first encode of a process differs from the next, and the corpus must be reproducible
_X264 = {"preset": "veryfast", "crf": "28", "threads": "1", "x264-params": "mbtree=0"}
_CLIP_RATE = 16_000


def picture(
    shape: str, color: str, ground: str, size: tuple[int, int], center: tuple[float, float], radius: float
) -> Any:
    """Returns a Pillow RGB image of ``size`` (width, height). ``center`` and ``radius`` are fractions of it."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", size, COLORS[ground])
    draw, fill = ImageDraw.Draw(image), COLORS[color]
    x, y, r = center[0] * size[0], center[1] * size[1], radius * min(size)
    box = (x - r, y - r, x + r, y + r)
    if shape == "circle":
        draw.ellipse(box, fill=fill)
    elif shape == "square":
        draw.rectangle(box, fill=fill)
    elif shape == "ring":
        draw.ellipse(box, outline=fill, width=max(2, int(r / 3)))
    elif shape == "cross":
        draw.rectangle((x - r, y - r / 3, x + r, y + r / 3), fill=fill)
        draw.rectangle((x - r / 3, y - r, x + r / 3, y + r), fill=fill)
    else:
        points, inner = (3, 1.0) if shape == "triangle" else (5, 0.4)
        angles = [(-math.pi / 2 + k * math.pi / points, inner if k % 2 else 1.0) for k in range(2 * points)]
        if shape == "triangle":
            angles = angles[::2]
        draw.polygon([(x + r * s * math.cos(a), y + r * s * math.sin(a)) for a, s in angles], fill=fill)
    return image


def tone(pitch_hz: float, seconds: float, rate: int) -> np.ndarray:
    """Returns [samples] float32 at ``rate`` Hz: a note with three overtones that swells and fades."""
    t = np.arange(round(seconds * rate)) / rate
    wave = sum(np.sin(2 * np.pi * pitch_hz * k * t) / k**2 for k in range(1, 5))
    swell = np.minimum(1, np.minimum(t, seconds - t) / 0.03)
    return (0.3 * wave * swell).astype(np.float32)


def spoken(text: str, pitch_hz: float, rate: int) -> np.ndarray:
    """Returns [samples] float32 at ``rate`` Hz: the syllables of ``text``, 0.25 s each, with a rest between words."""
    rest = np.zeros(round(0.12 * rate), np.float32)
    pieces: list[np.ndarray] = []
    for word in text.split():
        pieces.extend(_syllable(word[i], word[i + 1], pitch_hz, rate) for i in range(0, len(word), 2))
        pieces.append(rest)
    return np.concatenate(pieces)


def _syllable(onset: str, vowel: str, pitch_hz: float, rate: int) -> np.ndarray:
    """Returns a burst of noise, then harmonics of a falling pitch with the envelope of the vowel's formants."""
    seconds = 0.25
    t = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * pitch_hz * (t - 0.2 * t**2)
    wave = np.zeros_like(t)
    for k in range(1, int(min(4000, rate / 2) / pitch_hz)):
        level = sum(1 / (1 + ((k * pitch_hz - formant) / 90) ** 2) for formant in _VOWELS[vowel])
        wave += level * np.sin(k * phase) / math.sqrt(k)
    voice = wave / np.abs(wave).max() * np.clip((t - 0.05) / 0.02, 0, 1) * np.minimum(1, (seconds - t) / 0.04)
    noise = np.random.default_rng(7).standard_normal(len(t)) * np.cos(2 * np.pi * min(_ONSETS[onset], rate / 3) * t)
    burst = noise * np.exp(-(((t - 0.03) / 0.015) ** 2))
    sound: np.ndarray = 0.5 * voice + 0.08 * burst
    return sound.astype(np.float32)


def clip(
    path: Path,
    shape: str,
    color: str,
    ground: str,
    move: tuple[tuple[float, float], tuple[float, float]],
    seconds: float,
    fps: int,
) -> None:
    """Writes an MP4: H.264 of the shape moving from ``move[0]`` to ``move[1]``, and AAC of its pitch."""
    import av

    frames = round(seconds * fps)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=fps, options=_X264)
        video.width, video.height = _CLIP_SIZE
        video.pix_fmt = "yuv420p"
        sound = container.add_stream("aac", rate=_CLIP_RATE)
        sound.layout = "mono"
        sound.bit_rate = 32_000
        (x0, y0), (x1, y1) = move
        for i in range(frames):
            done = i / max(1, frames - 1)
            center = (x0 + (x1 - x0) * done, y0 + (y1 - y0) * done)
            frame = av.VideoFrame.from_image(picture(shape, color, ground, _CLIP_SIZE, center, 0.18))
            frame.pts, frame.time_base = i, Fraction(1, fps)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        samples = tone(SHAPES[shape], seconds, _CLIP_RATE)
        heard = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        heard.sample_rate, heard.pts, heard.time_base = _CLIP_RATE, 0, Fraction(1, _CLIP_RATE)
        container.mux(sound.encode(heard))
        container.mux(sound.encode(None))


def ogg_with_serial(data: bytes, serial: int) -> bytes:
    """Returns an Ogg stream with this serial number. Encoders draw a random one, which would change the corpus."""
    pages, at = bytearray(data), 0
    while at < len(pages):
        segments = pages[at + 26]
        end = at + 27 + segments + sum(pages[at + 27 : at + 27 + segments])
        pages[at + 14 : at + 18] = serial.to_bytes(4, "little")
        pages[at + 22 : at + 26] = bytes(4)
        pages[at + 22 : at + 26] = _ogg_crc(pages[at:end]).to_bytes(4, "little")
        at = end
    return bytes(pages)


def _ogg_crc(page: bytes | bytearray) -> int:
    """Returns the checksum of an Ogg page (RFC 3533): polynomial 0x04c11db7, not reflected."""
    crc = 0
    for byte in page:
        crc = ((crc << 8) & 0xFFFFFFFF) ^ _CRC[(crc >> 24) ^ byte]
    return crc


def _crc_entry(index: int) -> int:
    """Returns one entry of the table for bytewise checksums."""
    value = index << 24
    for _ in range(8):
        value = ((value << 1) ^ 0x04C11DB7 if value & 0x80000000 else value << 1) & 0xFFFFFFFF
    return value


_CRC = [_crc_entry(index) for index in range(256)]
