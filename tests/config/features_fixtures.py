"""Features over the demo's checkpoints, and what binding makes of them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline import config as configs
from pipeline.config.features import BoundFeature, bind
from pipeline.core.errors import ConfigError

KINDS = {"text": "text", "image": "patch", "video": "frame", "audio": "audio_frame"}


RAW_IMAGE = {
    "modality": "image",
    "tokenizer": {"kind": "patch", "size": 32, "patch_size": 8},
    "encoder": {"kind": "raw"},
    "emit": ["tokens"],
}


def feature(modality: str, kind: str, checkpoint: Path, **changes: Any) -> dict[str, Any]:
    """A feature with the modality's usual tokenizer."""
    return {
        "modality": modality,
        "tokenizer": {"kind": KINDS[modality]},
        "encoder": {"kind": kind, "checkpoint": str(checkpoint)},
        **changes,
    }


def bound(features: dict[str, Any], **sections: Any) -> tuple[BoundFeature, ...]:
    raw = {"source": {"kind": "files", "path": "in"}, "output": {"path": "out"}, "features": features, **sections}
    return bind(configs.parse(copy.deepcopy(raw)))


def bind_one(one: dict[str, Any], **sections: Any) -> BoundFeature:
    (done,) = bound({"f": one}, **sections)
    return done


def refused(one: dict[str, Any], **sections: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        bind_one(one, **sections)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit(path: Path, **changes: Any) -> Path:
    """Change keys of a checkpoint's config.json."""
    file = path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return path
