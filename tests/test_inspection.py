"""`tessera inspect` shows what is there, counted independently here."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from pipeline import inspection
from pipeline.errors import ConfigError
from pipeline.sinks.shards import ShardWriter
from tests.sinks.test_shards import rows


def test_it_counts_and_samples(tmp_path: Path) -> None:
    import json

    import pyarrow as pa

    from pipeline.config import OutputConfig
    from pipeline.schema import FIXED
    from pipeline.sinks.shards import footer
    from tests.sinks.test_shards import FIELDS

    lineage = {
        **dict.fromkeys(("model", "model_type", "tokenizer", "processor", "space", "fingerprint"), "m"),
        "modality": "audio",
        "emit": ["embedding", "tokens"],
        "revision": None,
        "weights_sha256": "ab" * 32,
        "normalized": True,
        "dim": 3,
        "token_dim": 4,
        "dtype": "float32",
        "prompt": None,
        "head": "native",
        "embedding_dtype": "float32",
        "token_dtype": "float16",
    }
    schema = footer(
        pa.schema([*FIXED, *FIELDS]), {"contract": 1, "run_id": "r", "features": {"f": lineage}, "versions": {}}
    )
    root = tmp_path / "v1"
    writer = ShardWriter(str(root), "r", "r", {"f": [f.name for f in FIELDS]}, schema, OutputConfig(path="x"))
    writer.add(rows(["a", "b", "c", "d"], {1: "corrupt", 2: "corrupt"}))
    done = writer.close()
    snapshot = {"contract": 1, "snapshot": 1, "run_id": "r", "created": "2026-01-01T00:00:00+00:00"}
    (root / "_snapshots").mkdir()
    (root / "_snapshots" / "00000001.json").write_text(
        json.dumps({**snapshot, "shards": done.shards, "failures": done.failure_shards})
    )
    out = io.StringIO()
    inspection.show(str(tmp_path), 1, Console(file=out, width=160))
    text = out.getvalue()
    assert "2 rows" in text
    assert "2 failures" in text
    assert "corrupt" in text
    assert "2×1×1 tokens" in text
    assert "abababababab" in text


def test_no_dataset_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        inspection.show(str(tmp_path), 1, Console(file=io.StringIO()))
