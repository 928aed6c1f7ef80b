"""Checkpoints: a value in one of the JSON files of a model of the demo's, bound to a feature that reads it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from pipeline import config
from pipeline.config import features
from tests.fuzz import mutation
from tests.fuzz.cases import Case
from tests.support import ROOT

MODELS = ROOT / ".demo" / "models"
_FEATURES = {
    "bert": ("text", "text", "bert"),
    "clip": ("image", "patch", "clip"),
    "clip words": ("text", "text", "clip"),
    "dinov2": ("image", "patch", "vit"),
    "vit": ("image", "patch", "vit"),
    "siglip": ("image", "patch", "siglip"),
    "siglip words": ("text", "text", "siglip"),
    "videomae": ("video", "tubelet", "videomae"),
    "vjepa2": ("video", "tubelet", "vjepa2"),
    "wav2vec2": ("audio", "audio_frame", "wav2vec2"),
    "whisper": ("audio", "audio_frame", "whisper"),
    "ast": ("audio", "audio_frame", "ast"),
    "clap": ("audio", "audio_frame", "clap"),
    "clap words": ("text", "text", "clap"),
    "embedding_gemma2": ("image", "patch", "embedding_gemma2"),
    "embedding_gemma2 words": ("text", "text", "embedding_gemma2"),
}
"""Model, and which of its features -> modality, tokenizer, encoder."""


class Checkpoints:
    seconds, memory_mb, starts = 20.0, 1024, False

    def __init__(self, work: Path) -> None:
        for name in _FEATURES:  # imports are no input's time and memory
            features.bind(_config(name, MODELS / name.split()[0], work))
        self.files = {
            name: [path.name for path in sorted((MODELS / name.split()[0]).glob("*.json"))] for name in _FEATURES
        }

    def prepare(self, box: Path) -> None:
        """`run` puts there what the input leaves as it is."""

    def case(self, rng: random.Random) -> Case:
        name = rng.choice(sorted(_FEATURES))
        file = rng.choice([one for one in self.files[name] if one != "tokenizer.json" or rng.random() < 0.2])
        data = (MODELS / name.split()[0] / file).read_bytes()
        kind = rng.random()
        if kind < 0.1 or file == "tokenizer.json":
            return Case({f"model/{file}": mutation.changed(rng, data)}, steps=[name])
        tree = json.loads(data)
        changed = mutation.similar(rng, tree, [tree]) if kind < 0.4 else mutation.structure(rng, tree)
        try:
            return Case({f"model/{file}": json.dumps(changed).encode()}, steps=[name])
        except RecursionError:
            return Case({f"model/{file}": b"[" * 100_000}, steps=[name])

    def run(self, box: Path, case: Case) -> Any:
        name = case.steps[0]
        for path in (MODELS / name.split()[0]).iterdir():
            if not (box / "model" / path.name).exists():
                (box / "model" / path.name).symlink_to(path)
        return [one.fingerprint for one in features.bind(_config(name, box / "model", box))]


def _config(name: str, checkpoint: Path, box: Path) -> config.PipelineConfig:
    modality, tokenizer, encoder = _FEATURES[name]
    return config.parse(
        {
            "source": {"kind": "files", "path": str(box)},
            "output": {"path": str(box / "out")},
            "features": {
                "f": {
                    "modality": modality,
                    "tokenizer": {"kind": tokenizer},
                    "encoder": {"kind": encoder, "checkpoint": str(checkpoint)},
                }
            },
        }
    )
