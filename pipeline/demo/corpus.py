"""Generates the demo corpus: coloured shapes as pictures, clips, sounds and texts. So git holds no media.

pictures/   coloured shapes, JPEG and PNG, each with a caption of the same stem
drawings/   pictures without captions
clips/      moving shapes, H.264 with an AAC track whose pitch depends on the shape; a caption or timed captions
tones/      melodies in WAV, FLAC and OGG, each with a text that names its notes
speech/     syllables from a formant synthesiser, each with its transcript
notes/      texts without media
broken/     files that no decoder can read completely, to show failures
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.demo._synthesis import (
    COLORS,
    NOTES,
    SHAPES,
    SYLLABLES,
    clip,
    ogg_with_serial,
    picture,
    spoken,
    tone,
)

PICTURES, DRAWINGS, CLIPS, TONES, SPEECH, NOTES_TEXTS = 130, 60, 60, 45, 45, 80
_RATES = {"wav": 16_000, "flac": 22_050, "ogg": 44_100}
_SIZES = {"tiny": 0.16, "small": 0.24, "large": 0.36}
_MOVES = {
    "from left to right": ((0.2, 0.5), (0.8, 0.5)),
    "from right to left": ((0.8, 0.5), (0.2, 0.5)),
    "downwards": ((0.5, 0.2), (0.5, 0.8)),
    "upwards": ((0.5, 0.8), (0.5, 0.2)),
    "not at all": ((0.5, 0.5), (0.5, 0.5)),
}


def build(folder: str | Path, seed: int = 0) -> dict[str, int]:
    """Writes the corpus into ``folder``: the same bytes for the same ``seed`` and libraries.

    Returns:
        The number of samples of each kind, and ``samples``, their sum.
    """
    root = Path(folder)
    makers: dict[str, tuple[Callable[[Path, int, np.random.Generator], None], int]] = {
        "pictures": (_picture_with_caption, PICTURES),
        "drawings": (_drawing, DRAWINGS),
        "clips": (_clip_with_caption, CLIPS),
        "tones": (_tone_with_text, TONES),
        "speech": (_speech_with_transcript, SPEECH),
        "notes": (_note, NOTES_TEXTS),
    }
    counts = {}
    for number, (name, (make, count)) in enumerate(makers.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            make(root / name, i, np.random.default_rng([seed, number, i]))
        counts[name] = count
    counts["broken"] = _broken(root / "broken", root)
    return {**counts, "samples": sum(counts.values())}


# -- pictures ------------------------------------------------------------------------------------


def _pick(rng: np.random.Generator, names: Any) -> str:
    return str(rng.choice(list(names)))


def _draw(rng: np.random.Generator) -> tuple[Any, str]:
    """Returns a picture and its caption."""
    size, shape, color = _pick(rng, _SIZES), _pick(rng, SHAPES), _pick(rng, COLORS)
    ground = _pick(rng, [name for name in COLORS if name != color])
    width, height = (int(side) for side in rng.choice([160, 192, 224, 256, 320], 2))
    center = (float(rng.uniform(0.35, 0.65)), float(rng.uniform(0.35, 0.65)))
    image = picture(shape, color, ground, (width, height), center, _SIZES[size])
    return image, f"a {size} {color} {shape} on a {ground} ground"


def _save(image: Any, path: Path, i: int) -> None:
    """Saves a picture as its suffix says. Some are grey, have a palette or are transparent."""
    if path.suffix == ".jpg":
        (image.convert("L") if i % 20 == 0 else image).save(path, quality=88)
    else:
        mode = {1: "P", 3: "RGBA", 5: "LA"}.get(i % 20, "RGB")
        image.convert(mode).save(path)


def _picture_with_caption(folder: Path, i: int, rng: np.random.Generator) -> None:
    image, caption = _draw(rng)
    stem = folder / f"{i:03d}"
    _save(image, stem.with_suffix((".jpg", ".png")[i % 2]), i)
    grey = "a grey picture of " if i % 20 in (0, 5) else ""
    stem.with_suffix(".txt").write_text(f"{grey}{caption}\n", encoding="utf-8")


def _drawing(folder: Path, i: int, rng: np.random.Generator) -> None:
    image, _ = _draw(rng)
    _save(image, folder / f"drawing {i:02d}{('.jpg', '.png')[i % 2]}", i)


# -- clips ---------------------------------------------------------------------------------------


def _clip_with_caption(folder: Path, i: int, rng: np.random.Generator) -> None:
    shape, color, move = _pick(rng, SHAPES), _pick(rng, COLORS), _pick(rng, _MOVES)
    ground = _pick(rng, [name for name in COLORS if name != color])
    seconds = float(rng.choice([2.0, 3.0, 4.5]))
    fps = int(rng.choice([10, 12, 15]))
    stem = folder / f"{i:02d}-{color}-{shape}"
    clip(stem.with_suffix(".mp4"), shape, color, ground, _MOVES[move], seconds, fps)
    if i % 6 == 5:
        half = seconds / 2
        cues = ((0.0, half, f"a {color} {shape} appears"), (half, seconds, f"it moves {move}"))
        text = "".join(f"{n}\n{_clock(a)} --> {_clock(b)}\n{words}\n\n" for n, (a, b, words) in enumerate(cues, 1))
        stem.with_suffix(".srt").write_text(text, encoding="utf-8")
    else:
        caption = f"a {color} {shape} on a {ground} ground moves {move} and hums at {SHAPES[shape]} hertz\n"
        stem.with_suffix(".txt").write_text(caption, encoding="utf-8")


def _clock(seconds: float) -> str:
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return f"00:{whole // 60:02d}:{whole % 60:02d},{milliseconds:03d}"


# -- sounds --------------------------------------------------------------------------------------


def _write_sound(stem: Path, i: int, make: Callable[[int], np.ndarray], text: str) -> None:
    import soundfile

    form = list(_RATES)[i % len(_RATES)]
    rate, data = _RATES[form], io.BytesIO()
    soundfile.write(data, make(rate), rate, format=form.upper(), subtype="VORBIS" if form == "ogg" else "PCM_16")
    written = data.getvalue()
    stem.with_suffix(f".{form}").write_bytes(ogg_with_serial(written, i + 1) if form == "ogg" else written)
    stem.with_suffix(".txt").write_text(f"{text}\n", encoding="utf-8")


def _tone_with_text(folder: Path, i: int, rng: np.random.Generator) -> None:
    names = [_pick(rng, NOTES) for _ in range(int(rng.integers(2, 7)))]

    def melody(rate: int) -> np.ndarray:
        return np.concatenate([tone(NOTES[name], 0.4, rate) for name in names])

    _write_sound(folder / f"{i:02d}", i, melody, f"a melody of {len(names)} notes: {', '.join(names)}")


def _speech_with_transcript(folder: Path, i: int, rng: np.random.Generator) -> None:
    words = ["".join(_pick(rng, SYLLABLES) for _ in range(int(rng.integers(1, 4)))) for _ in range(4)]
    pitch_hz = float(rng.uniform(90, 220))
    _write_sound(folder / f"{i:02d}", i, lambda rate: spoken(" ".join(words), pitch_hz, rate), " ".join(words))


# -- texts ---------------------------------------------------------------------------------------


def _note(folder: Path, i: int, rng: np.random.Generator) -> None:
    """Writes one to twelve sentences. One note in ten has other alphabets too, one in ten is HTML."""
    lines = []
    for _ in range(int(rng.integers(1, 13))):
        one, other = _pick(rng, SHAPES), _pick(rng, SHAPES)
        lines.append(
            f"The {_pick(rng, COLORS)} {one} is {_pick(rng, ('left of', 'above', 'behind', 'near'))} "
            f"the {_pick(rng, COLORS)} {other}."
        )
    if i % 10 == 4:
        lines.append("Der grüne Kreis · 緑の円 · зелёный круг · दायरा")
    if i % 10 == 9:
        (folder / f"{i:02d}.html").write_text(f"<p>{'</p><p>'.join(lines)}</p>\n", encoding="utf-8")
    else:
        (folder / f"{i:02d}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


# -- broken --------------------------------------------------------------------------------------


def _broken(folder: Path, root: Path) -> int:
    """Writes files that fail, made from intact ones. Returns how many."""
    folder.mkdir(parents=True, exist_ok=True)

    def half(name: str) -> bytes:
        data = (root / name).read_bytes()
        return data[: len(data) // 2]

    clips = sorted(name for name in os.listdir(root / "clips") if name.endswith(".mp4"))
    files = {
        "truncated.jpg": half("pictures/002.jpg"),
        "empty.png": b"",
        "nothing.txt": b"",
        "words.mp4": b"This is a text, whatever its name says.\n",
        "cut.mp4": half(f"clips/{clips[0]}"),
        "headless.flac": (root / "tones" / "01.flac").read_bytes()[64:],
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return len(files)
