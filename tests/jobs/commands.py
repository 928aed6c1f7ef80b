"""Runs the `tessera` command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml
from PIL import Image

from tests.support import ROOT


def tessera(*args: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, with a Ray of its own."""
    return subprocess.run(
        [sys.executable, "-m", "jobs.cli", *args],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200"},
        timeout=200,
        check=False,
    )


def write_config(folder: Path, **changes: object) -> Path:
    """One picture that is well and one that is empty; values without a model, which takes seconds to import."""
    corpus = folder / "in"
    corpus.mkdir()
    Image.new("RGB", (20, 20), (1, 2, 3)).save(corpus / "a.png")
    (corpus / "b.png").write_bytes(b"")
    raw = {
        "source": {"kind": "files", "path": "./in"},
        "output": {"path": "./out"},
        "features": {
            "t": {
                "modality": "image",
                "tokenizer": {"kind": "patch", "size": 16, "patch_size": 8},
                "encoder": {"kind": "raw"},
                "emit": ["tokens"],
            }
        },
        **changes,
    }
    path = folder / "c.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path
