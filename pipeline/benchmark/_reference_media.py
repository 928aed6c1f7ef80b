"""Opens media for the reference, as a plain script would: Pillow, PyAV, soundfile."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.core.media import UniformSampling
from pipeline.decoders import open_av
from pipeline.decoders.image import FORMATS
from pipeline.storage.blob import Blob

Row = dict[str, Any]


def read_text(row: Row) -> str:
    """Returns the text of a row, or the part of it in its window."""
    text: str = row["inline_text"]
    if text is None:
        with Blob(row["text_uri"]).open() as file:
            text = file.read().decode()
    if row["text_from"] is not None:
        text = text[row["text_from"] : row["text_to"]]
    return text


def read_picture(row: Row) -> Any:
    """Returns a Pillow RGB image."""
    from PIL import Image

    with Blob(row["image_uri"]).open() as file:
        return Image.open(file, formats=FORMATS).convert("RGB")


def read_frames(row: Row, sampling: Any) -> np.ndarray:
    """Returns [T, H, W, 3] uint8: the sampled frames of the window.

    Decodes from the key frame before the window to its end, and converts only the sampled frames.
    """
    start, end = row["start_s"], row["end_s"]
    with Blob(row["video_uri"]).open() as file, open_av(file) as container:
        stream = container.streams.video[0]
        if start:
            container.seek(int(start / stream.time_base), stream=stream)
        frames = []
        for frame in container.decode(stream):
            if frame.time is None or frame.time < start - 1e-6:
                continue
            if frame.time >= end:
                break
            frames.append(frame)
        if isinstance(sampling, UniformSampling):
            count = sampling.frames
        else:
            count = max(1, min(round((end - start) * sampling.fps), sampling.max_frames or 1 << 30))
        chosen = np.linspace(0, len(frames) - 1, count).round().astype(int)
        return np.stack([frames[i].to_ndarray(format="rgb24") for i in chosen])


def read_sound(row: Row, sample_rate: int) -> np.ndarray:
    """Returns [samples] float32 at ``sample_rate`` Hz, mono: the sound of the window."""
    import torch
    import torchaudio

    uri, start, end = row["audio_uri"], row["start_s"], row["end_s"]
    with Blob(uri).open() as file:
        try:
            import soundfile

            with soundfile.SoundFile(file) as sound:
                rate = sound.samplerate
                sound.seek(min(int(start * rate), sound.frames))
                samples = sound.read(int((end - start) * rate), dtype="float32", always_2d=True).mean(1)
        except soundfile.LibsndfileError:
            file.seek(0)
            samples, rate = _read_sound_of_container(file, start, end)
    if rate != sample_rate:
        samples = torchaudio.functional.resample(torch.from_numpy(samples), rate, sample_rate).numpy()
    return np.ascontiguousarray(samples)


def _read_sound_of_container(file: Any, start: float, end: float) -> tuple[np.ndarray, int]:
    """Returns [samples] float32 and their rate in Hz, for files that soundfile does not read."""
    import av

    with open_av(file) as container:
        stream = container.streams.audio[0]
        if start:
            container.seek(int(start / stream.time_base), stream=stream)
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=stream.rate)
        parts: list[np.ndarray] = []
        first: float | None = None
        for frame in container.decode(stream):
            if frame.time is not None and frame.time >= end:
                break
            if frame.time is None or frame.time + frame.samples / frame.sample_rate > start:
                parts += [one.to_ndarray()[0] for one in resampler.resample(frame)]
            first = frame.time if first is None and parts else first
        samples = np.concatenate(parts)[max(0, round((start - (first or 0.0)) * stream.rate)) :]
        return samples[: round((end - start) * stream.rate)], stream.rate
