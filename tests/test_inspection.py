"""`tessera inspect` shows what is there, counted independently here."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from pipeline import inspection, upkeep
from pipeline.errors import ConfigError
from pipeline.sinks.shards import ShardWriter
from pipeline.terminal import Console
from tests.dataset_fixtures import RUNS, night
from tests.sinks.test_shards import rows

RUN = "20260101T000000-0001"


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
        pa.schema([*FIXED, *FIELDS]), {"contract": 1, "run_id": RUN, "features": {"f": lineage}, "versions": {}}
    )
    root = tmp_path / "v1"
    writer = ShardWriter(
        str(root), f"{RUN}-000000", RUN, {"f": [f.name for f in FIELDS]}, schema, OutputConfig(path="x")
    )
    writer.add(rows(["a", "b", "c", "d"], {1: "corrupt", 2: "corrupt"}))
    done = writer.close()
    snapshot = {"contract": 1, "snapshot": 1, "run_id": RUN, "created": "2026-01-01T00:00:00+00:00"}
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


def _printed(show: Any, *args: Any) -> str:
    console = Console(width=160, file=io.StringIO())
    show(*args, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_snapshots_and_versions_are_listed(tmp_path: Path) -> None:
    for version in ("v1", "v2"):
        night(tmp_path / version, RUNS[1], ["a", "b", "c"], {2: "corrupt"})
    night(tmp_path / "v2", RUNS[2], ["d"], drops={f"data/{RUNS[1]}-000000-000.parquet": [0]})
    text = _printed(inspection.show_snapshots, str(tmp_path), "v2")
    lines = [line.split() for line in text.splitlines()[1:]]
    assert [(line[0], line[2], line[3], line[4:]) for line in lines] == [
        ("1", "extract", RUNS[1], ["2", "1", "1"]),
        ("2", "extract", RUNS[2], ["2", "1", "2"]),
    ]
    upkeep.use(str(tmp_path), "v1")
    text = _printed(inspection.show_versions, str(tmp_path))
    assert [line.split()[:2] for line in text.splitlines()[1:]] == [["v1", "current"], ["v2", "2"]]
    told = _printed(inspection.show_done, "rewrote", [upkeep.compact(str(tmp_path), "v2")])
    assert told.startswith("v2: 2 files rewritten, 1 deleted rows left out, wrote ")
    assert told.endswith("snapshot 3\n")


def test_failures_are_counted_over_all_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.dataset._FAILURE_ROWS", 2)
    names = [f"s{i}" for i in range(5)]
    night(tmp_path / "v1", RUNS[1], names, dict.fromkeys(range(5), "corrupt"))
    night(tmp_path / "v1", RUNS[2], ["a", "t"], {0: "corrupt", 1: "missing"})
    lines = [line.split() for line in _printed(inspection.show, str(tmp_path), 0).splitlines()]
    first = next(i for i, line in enumerate(lines) if line[:1] == ["failures"])
    assert [(line[0], line[2], line[4]) for line in lines[first + 1 : first + 3]] == [
        ("6", "corrupt", "a:"),
        ("1", "missing", "t:"),
    ]
    monkeypatch.setattr("pipeline.inspection._MOST_GROUPS", 1)
    assert "1         of 1 further kinds" in _printed(inspection.show, str(tmp_path), 0)
