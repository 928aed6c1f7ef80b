"""A dataset whose texts try to be markup, YAML, JSON and secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.dataset.loading import written

SECRET = "hunter2hunter2"
TEXTS = (
    "a | b\n| --- |\n# heading",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "[click](https://evil.example) ![x](https://evil.example/x.png) www.evil.example @everyone :tada:",
    "---\nlicense: mit\n---",
    "`code` ``` **bold** _em_ ~~s~~ \\ $x$ &amp; {{ x }} {% raw %}",
    "\x1b[31mred\u202egnp\u200b\x00",
    f"s3://key:{SECRET}@bucket/model",
    f"https://host/m?X-Amz-Signature={SECRET}",
    "!!python/object/apply:os.system [id]",
    "- list\n> quote\n1. one\n\tcode",
    "x" * 5000,
    "</td></table>-->",
)
"""Models, revisions, spaces, prompts."""
COLUMNS = ("a|b", "<b>", "x: [y]\n- z", "../up", "@id", "rows/a", "c\x1bd", "%61", "ünï", "n" * 400, "http://x/y")
"""Columns of the corpus."""


def feature(number: int) -> dict[str, Any]:
    """Returns the description of a feature in which every text is hostile."""
    text = TEXTS[number % len(TEXTS)]
    names = ("model_type", "revision", "weights_sha256", "tokenizer", "head", "dtype", "embedding_dtype", "token_dtype")
    return {
        "modality": "image",
        "emit": ["embedding", "tokens"],
        "model": text,
        "space": text,
        "prompt": text,
        "fingerprint": text,
        "processor": text,
        "dim": written.D,
        "token_dim": written.W,
        **dict.fromkeys(names, text),
    }


def write(out: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Writes the dataset: a good feature ``photo``, hostile ones, and hostile columns."""
    features = {f"f{number}|<i>\n`{number}": feature(number) for number in range(len(TEXTS))}
    monkeypatch.setattr(written, "FEATURES", {**written.FEATURES, **features})
    schema = pa.schema([*written.SCHEMA, *(pa.field(name, pa.string()) for name in COLUMNS)])
    rows = [{**written.row(number), **dict.fromkeys(COLUMNS, f"v{number}")} for number in range(7)]
    return written.write(out, rows, 2, schema=schema)
