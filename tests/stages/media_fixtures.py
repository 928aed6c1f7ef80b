"""Small media written on the spot, and configs over them that need no checkpoint."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
import yaml

from pipeline import config as configs
from pipeline import sources
from pipeline.config import loading
from pipeline.config.features import BoundFeature, bind
from pipeline.config.models import PipelineConfig
from tests.support import ROOT

RAW = {"kind": "raw"}
VIDEO = {
    "modality": "video",
    "tokenizer": {"kind": "frame", "size": 32, "sampling": {"kind": "fps", "fps": 2}},
    "encoder": RAW,
    "emit": ["tokens"],
}
AUDIO = {
    "modality": "audio",
    "tokenizer": {"kind": "audio_frame", "sample_rate": 8000},
    "encoder": RAW,
    "emit": ["tokens"],
}
IMAGE = {
    "modality": "image",
    "tokenizer": {"kind": "patch", "size": 32, "patch_size": 8},
    "encoder": RAW,
    "emit": ["tokens"],
}


def text(tokenizer: Path, **options: Any) -> dict[str, Any]:
    """A text feature of token ids."""
    return {
        "modality": "text",
        "tokenizer": {"kind": "text", "checkpoint": str(tokenizer), **options},
        "encoder": RAW,
        "emit": ["token_ids"],
    }


def config(folder: Path, features: dict[str, Any], **sections: Any) -> PipelineConfig:
    return configs.parse(
        {
            "source": {"kind": "files", "path": str(folder)},
            "output": {"path": str(folder.parent / "out")},
            "features": features,
            "failures": {"max_fraction": 1.0},
            **sections,
        }
    )


def media_config(models: Path, source: Path | str, output: Path | str, *overrides: str) -> PipelineConfig:
    """configs/media.yaml over ``source``, with the checkpoints of ``models``."""
    raw = yaml.safe_load((ROOT / "configs" / "media.yaml").read_text())
    for feature in raw["features"].values():
        checkpoint = models / Path(feature["encoder"]["checkpoint"]).name
        feature["encoder"] = {**feature["encoder"], "checkpoint": str(checkpoint)}
    raw["source"]["path"], raw["output"]["path"] = str(source), str(output)
    for override in overrides:
        loading._override(raw, override)
    return configs.parse(raw)


def bound(settings: PipelineConfig) -> tuple[PipelineConfig, tuple[BoundFeature, ...], Any]:
    """A config with its features and the one listed table."""
    import pyarrow as pa

    source = sources.build(settings.source)
    source.check("source")
    return settings, bind(settings), pa.concat_tables(source.list())


def write_clip(path: Path, seconds: float, sound_s: float | None = None, fps: int = 10) -> None:
    """A clip whose picture brightens with time; ``sound_s`` seconds of a tone."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("mpeg4", rate=fps)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = out.add_stream("aac", rate=16000, layout="mono") if sound_s is not None else None
        for i in range(round(seconds * fps)):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), min(255, 10 + 2 * i), np.uint8), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, fps)
            out.mux(video.encode(frame))
        out.mux(video.encode())
        if audio is not None and sound_s is not None:
            wave = np.sin(np.arange(round(sound_s * 16000)) * 0.2).astype(np.float32) * 0.3
            for at in range(0, len(wave), 1024):
                frame = av.AudioFrame.from_ndarray(wave[None, at : at + 1024], format="fltp", layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = 16000, at, Fraction(1, 16000)
                out.mux(audio.encode(frame))
            out.mux(audio.encode())


def write_tone(path: Path, seconds: float, rate: int = 8000) -> np.ndarray:
    """A tone whose samples are returned."""
    wave = (np.sin(np.arange(round(seconds * rate)) * 0.3) * 0.5).astype(np.float32)
    soundfile.write(path, wave, rate, subtype="FLOAT")
    return wave
