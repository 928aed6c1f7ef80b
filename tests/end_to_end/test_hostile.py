"""Hostile media and good ones in one corpus, through a whole run on Ray: each bad one is one failure of its kind."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipeline import dataset, run
from pipeline.run import pipeline
from pipeline.stages.decode import DecodeStage
from pipeline.stages.encode import EncodeStage
from pipeline.stages.probe import ProbeStage
from tests.sandbox.faults import FAULTS
from tests.sandbox.faulty_media import FaultyDecode, FaultyOpening
from tests.stages.media_fixtures import AUDIO, IMAGE, VIDEO, bound, config
from tests.support import local_runs

KINDS = {
    **dict.fromkeys(("abort", "segfault", "exit", "sysexit"), "crash"),
    **dict.fromkeys(("gil", "regex", "spin"), "timeout"),
    **dict.fromkeys(("pages", "arrays", "atonce", "untouched", "kill"), "memory"),
}
LIMITS = {"row_seconds": 4.0, "memory_bytes": 256 << 20}
FEATURES = {"i": IMAGE, "v": VIDEO, "a": AUDIO}


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoders of this run do what a file's name says."""
    monkeypatch.setattr(pipeline, "ProbeStage", FaultyOpening)
    monkeypatch.setattr(pipeline, "DecodeStage", FaultyDecode)


def _settings(corpus: Path) -> Any:
    return config(corpus, FEATURES, window={"length_s": 4}, decoders={"limits": LIMITS}, compute={"block_rows": 8})


def _doubles(corpus: Path) -> dict[str, str]:
    """Pictures that are well but for what the double does at their names; name -> the kind of their failure."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8))
    kinds = {f"bad-{name}.png": kind for name, kind in KINDS.items()}
    kinds |= {f"bad-{name}-opening.png": KINDS[name] for name in ("abort", "gil", "pages")}
    for name in kinds:
        picture.save(corpus / name)
    return kinds


def _good(corpus: Path, data: Path, *patterns: tuple[str, int]) -> None:
    for pattern, count in patterns:
        files = (path for path in sorted(data.glob(pattern)) if path.stat().st_size < 2 << 20)
        for path in [path for path in files if path.suffix not in (".csv", ".md")][:count]:
            shutil.copy(path, corpus / f"good-{path.name}")


def _check(corpus: Path, kinds: dict[str, str]) -> None:
    """Every row of good media with the values that the stages give in this process; every double one failure."""
    found = dataset.open(str(corpus.parent / "out"))
    failures = found.failures().to_pylist()
    reported = [(row["sample_id"], row["feature"], row["kind"]) for row in failures if row["sample_id"] in kinds]
    assert sorted(reported) == sorted((name, "i", kind) for name, kind in kinds.items())
    steps = {row["sample_id"]: row["stage"] for row in failures}
    assert all(steps[name] == ("probe" if "opening" in name else "decode") for name in kinds)
    late = {row["message"] for row in failures if row["kind"] == "timeout"}
    assert late == {"decoding took longer than 4 s", "opening took longer than 4 s"}
    assert [row["sample_id"] for row in failures if row["sample_id"].startswith("good-")] == []
    columns = [name for name in found.schema.names if name != "run_id"]
    rows = {
        (row["sample_id"], row["window"]): row
        for row in found.to_arrow(columns).to_pylist()
        if row["sample_id"].startswith("good-")
    }
    settings, made, listed = bound(_settings(corpus))
    table = listed.filter(pa.array([name.startswith("good-") for name in listed["sample_id"].to_pylist()]))
    for stage in (ProbeStage(settings, made), DecodeStage(settings, made), EncodeStage(settings, made)):
        stage.setup()
        table = stage(table)
    assert {(row["sample_id"], row["window"]): row for row in table.select(columns).to_pylist()} == rows
    assert len(rows) >= len(list(corpus.glob("good-*")))


@pytest.mark.slow
def test_doubles_and_all_the_bad_media_among_good(ray_session: Any, data: Path, tmp_path: Path, faulty: None) -> None:
    assert sorted(KINDS) == sorted(FAULTS)
    corpus = tmp_path / "in"
    corpus.mkdir()
    kinds = _doubles(corpus)
    _good(corpus, data, ("images/*", 100), ("videos/*.mp4", 10), ("audio/*", 40))
    with (data / "bad" / "manifest.csv").open(encoding="utf-8") as file:
        bad = [row["path"] for row in csv.DictReader(file)]
    shutil.copytree(data / "bad", corpus / "all")
    run.extract(local_runs.prepare(_settings(corpus)), show_progress=False)
    _check(corpus, kinds)
    found = dataset.open(str(corpus.parent / "out"))
    failures = found.failures()
    ids = {*found.to_arrow(["sample_id"])["sample_id"].to_pylist(), *failures["sample_id"].to_pylist()}
    text = {path for path in bad if path.endswith((".txt", ".jsonl"))}  # no feature here takes them
    assert [
        path for path in bad if path not in text and not {f"all/{path}", f"all/{path}".rsplit(".", 1)[0]} & ids
    ] == []
    assert not {"crash", "internal"} & {
        row["kind"] for row in failures.to_pylist() if row["sample_id"].startswith("all/")
    }
