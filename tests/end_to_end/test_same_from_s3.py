"""The same file gives the same row from a local disk and from S3 over HTTP: all columns, all failures."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import s3fs
import soundfile
import yaml
from PIL import Image

from pipeline import dataset, run
from tests.decoders._shared.test_not_media import _files as documents
from tests.decoders.reference import write_numbered
from tests.end_to_end.test_nights import draw
from tests.stages.media_fixtures import AUDIO, IMAGE, config
from tests.support import ROOT
from tests.support.faulty_proxy import FaultyProxy

_OF_A_RUN = ["run_id", "source_version"]
"""Columns that differ from run to run, or with the place."""


def _features(models: Path) -> dict[str, Any]:
    """Every modality, with the decoded values themselves where there is a raw encoder."""
    raw = {"encoder": {"kind": "raw"}, "emit": ["tokens"]}
    return {
        "picture": {"modality": "image", "tokenizer": {"kind": "patch", "size": 32, "patch_size": 16}, **raw},
        "frames": {
            "modality": "video",
            "tokenizer": {"kind": "frame", "size": 32, "sampling": {"kind": "uniform", "frames": 2}},
            **raw,
        },
        "sound": {"modality": "audio", "tokenizer": {"kind": "audio_frame", "sample_rate": 8000}, **raw},
        "words": {
            "modality": "text",
            "tokenizer": {"kind": "text", "checkpoint": str(models / "bert"), "max_length": 64},
            "encoder": {"kind": "raw"},
            "emit": ["token_ids"],
        },
    }


def _extracted(models: Path, source: str, out: Path) -> tuple[pa.Table, pa.Table]:
    """Rows and failures, in order."""
    raw = {
        "source": {"kind": "files", "path": source},
        "output": {"path": str(out)},
        "window": {"length_s": 10},
        "features": _features(models),
        "failures": {"max_fraction": 1.0, "allow_all": True},
    }
    config = out.with_suffix(".yaml")
    config.write_text(yaml.safe_dump(raw))
    command = [sys.executable, "-m", "jobs.cli", "extract", str(config)]  # whose Ray sees where S3 is
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = dataset.open(str(out))
    order = [("sample_id", "ascending"), ("window", "ascending")]
    rows = found.to_arrow().sort_by(order).drop_columns(_OF_A_RUN)
    failures = found.failures().sort_by([*order, ("feature", "ascending")]).drop_columns([*_OF_A_RUN, "uri"])
    return rows, failures


def _check(models: Path, s3: Any, local: Path, folder: Path) -> tuple[pa.Table, pa.Table]:
    s3.put(f"{local}/", "corpus/media/", recursive=True)
    rows, failures = _extracted(models, str(local), folder / "local")
    theirs, their_failures = _extracted(models, "s3://corpus/media", folder / "s3")
    assert theirs["sample_id"].to_pylist() == rows["sample_id"].to_pylist()
    for name in rows.column_names:
        assert theirs[name].combine_chunks().equals(rows[name].combine_chunks()), name
    places = re.compile(rf"s3://corpus/media|{re.escape(str(local))}")
    words = [
        [{**one, "message": places.sub("ROOT", one["message"])} for one in table.to_pylist()]
        for table in (failures, their_failures)
    ]
    assert words[1] == words[0]
    for one in words[0]:
        assert "object at 0x" not in one["message"], one
    return rows, failures


def test_files_of_every_kind(s3: Any, models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    draw(tmp_path, "a", 7)
    tone = np.sin(np.arange(24_000) / 10).astype(np.float32)
    for suffix in ("wav", "flac", "ogg", "mp3", "aiff"):
        soundfile.write(folder / f"tone.{suffix}", tone, 24_000)
        data = (folder / f"tone.{suffix}").read_bytes()
        (folder / f"headless.{suffix}").write_bytes(data[64:])
        (folder / f"cut.{suffix}").write_bytes(data[: len(data) // 2])
        (folder / f"nameless-{suffix}").write_bytes(data)
    for suffix in ("mp4", "mkv", "avi"):
        write_numbered(folder / f"clip.{suffix}", range(0, 1200, 40), codec="mpeg4")
        data = (folder / f"clip.{suffix}").read_bytes()
        (folder / f"cut-{suffix}.{suffix}").write_bytes(data[: len(data) // 2])
        (folder / f"headless-{suffix}.{suffix}").write_bytes(data[64:])
    for name, data in documents(tmp_path).items():
        (folder / re.sub(r"\W+", "-", name)).write_bytes(data)
    (folder / "words.txt").write_text("some words")
    (folder / "empty.txt").write_text("")
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:50])
    (folder / "noise.bin").write_bytes(np.random.default_rng(0).integers(0, 256, 5000, np.uint8).tobytes())
    rows, failures = _check(models, s3, folder, tmp_path)
    assert len(rows) > 15
    assert {"unsupported", "corrupt", "empty"} <= {*failures["kind"].to_pylist()}


@pytest.mark.slow
def test_all_real_media(s3: Any, models: Path, data: Path, tmp_path: Path) -> None:
    rows, _ = _check(models, s3, data, tmp_path)
    assert len(rows) > 1000


def test_a_report_counts_what_the_server_sent(s3: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Those of the probe and of decoding: each requests a small file once, and a larger one in ranges."""
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (40, 40)).save(tmp_path / "in" / f"{name}.png")
    tone = np.random.default_rng(0).normal(0, 0.1, 1_000_000).astype(np.float32)
    soundfile.write(tmp_path / "in" / "long.wav", tone, 16_000)
    s3.put(f"{tmp_path}/in/", "corpus/media/", recursive=True)
    with FaultyProxy(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        s3fs.S3FileSystem.clear_instance_cache()
        asked = config(tmp_path / "in", {"i": IMAGE, "a": AUDIO}, source={"kind": "files", "path": "s3://corpus/media"})
        report = run.extract(run.prepare(asked, False, None, "inline"), show_progress=False)
    s3fs.S3FileSystem.clear_instance_cache()
    sent = [size for method, path, size in proxy.requests if method == "GET" and "/media/" in path and "?" not in path]
    assert report["rows_written"] == 3
    assert len(sent) >= 2 + 2 + 3
    assert (report["storage_requests"], report["bytes_read"]) == (len(sent), sum(sent))
    assert report["storage_retries"] == 0
