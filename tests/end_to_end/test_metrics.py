"""Metrics of whole runs: on every engine the totals are the figures of the run's report."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline import run
from pipeline.core.errors import ConfigError
from pipeline.engine import ENGINES
from tests.stages.media_fixtures import AUDIO, IMAGE, config, text, write_clip, write_tone
from tests.support.exposition import Exposition, differences, read

AGENT_S = 30.0
"""Longest wait until the workers of Ray have reported to the agent, which they do every ten seconds."""


def write_corpus(folder: Path) -> None:
    """Whole rows, rows that lack a feature, rows that fail in several ways, and windows that hold nothing."""
    folder.mkdir()
    write_clip(folder / "clip.mp4", 2.5, sound_s=2.5)
    write_tone(folder / "tone.wav", 3.2)
    write_tone(folder / "half.wav", 2.0)
    (folder / "half.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(folder / "dark.png")
    (folder / "bad.wav").write_bytes(b"RIFF....WAVE")
    (folder / "none.jpg").write_bytes(b"")
    (folder / "words.txt").write_text("some words")
    write_clip(folder / "x.mp4", 1.0)
    (folder / "x.mp4").rename(folder / "silent.wav")


@pytest.fixture
def extract(prepare: Callable[..., Any], models: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Extracts the corpus with these metrics and returns the report."""
    write_corpus(tmp_path / "in")
    features = {"i": IMAGE, "a": AUDIO, "t": text(models / "bert")}

    def call(engine: str, retry: bool = False, **metrics: Any) -> dict[str, Any]:
        sections = {"window": {"length_s": 1}, "compute": {"block_rows": 4}, "metrics": metrics}
        settings = prepare(config(tmp_path / "in", features, **sections), False, None, engine)
        return run.extract(settings, show_progress=False, retry_failures=retry)

    return call


def _check(report: dict[str, Any], found: Exposition) -> None:
    assert list(differences(found, report)) == []
    assert found("tessera_run_active") == 0
    assert found("tessera_samples_planned") == report["samples"]
    assert found("tessera_block_rows_total") >= report["rows_planned"] + report["windows_empty"]
    assert found("tessera_blocks_total") >= 1


@pytest.mark.parametrize("engine", [pytest.param("inline", marks=pytest.mark.slow), "local"])
def test_the_totals_are_those_of_the_report(
    extract: Callable[..., dict[str, Any]], tmp_path: Path, engine: str
) -> None:
    path = tmp_path / "t.prom"
    report = extract(engine, textfile=str(path))
    assert report["rows_with_failures"] > report["rows_failed"] > 0
    assert report["windows_empty"] > 0
    assert len(report["failures_by_kind"]) > 1
    found = Exposition(path.read_text())
    _check(report, found)
    by_modality = found.by("tessera_rows_total", "modality")
    assert set(by_modality) >= {"audio", "image", "text"}, by_modality
    assert found("tessera_memory_bytes") > 10 << 20
    again = extract(engine, retry=True, textfile=str(path))
    assert again["rows_retried"] > 0
    _check(again, Exposition(path.read_text()))


@pytest.mark.slow
def test_the_totals_of_ray_are_those_of_the_report(
    extract: Callable[..., dict[str, Any]], ray_session: Any, tmp_path: Path
) -> None:
    """Workers count, and the agent of their node exports."""
    name, path = f"exact-{time.monotonic_ns()}", tmp_path / "t.prom"
    report = extract("ray", name=name, textfile=str(path))
    (node,) = ray_session.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    deadline = time.monotonic() + AGENT_S
    while True:
        found = Exposition(read(url), name, prefix="ray_")
        if not (left := list(differences(found, report))):
            break
        assert time.monotonic() < deadline, left
        time.sleep(0.5)
    assert report["windows_empty"] > 0
    assert found("tessera_blocks_total") > 1
    driver = Exposition(path.read_text(), name)
    assert driver("tessera_samples_planned") == report["samples"]
    assert driver("tessera_run_end_timestamp_seconds") > driver("tessera_run_start_timestamp_seconds")


@pytest.mark.slow
def test_ray_does_not_count_if_the_config_says_so(extract: Callable[..., dict[str, Any]], ray_session: Any) -> None:
    name = f"off-{time.monotonic_ns()}"
    extract("ray", name=name, ray=False)
    (node,) = ray_session.nodes()
    time.sleep(12)  # more than the interval at which workers report
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    assert name not in read(url)


def test_a_port_shows_a_run_while_it_lasts(extract: Callable[..., dict[str, Any]]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port, seen, done = free.getsockname()[1], [], threading.Event()

    def scrape() -> None:
        while not done.is_set():
            try:
                seen.append(Exposition(read(f"http://127.0.0.1:{port}/metrics")))
            except OSError:
                time.sleep(0.01)

    thread = threading.Thread(target=scrape)
    thread.start()
    extract("local", port=port)
    done.set()
    thread.join()
    assert max(one("tessera_run_active") for one in seen) == 1
    assert {labels["phase"] for one in seen for name, labels, _ in one.samples if name == "tessera_queue_blocks"} == {
        "probe",
        "decode",
    }
    assert max(one("tessera_queue_blocks", phase="probe") for one in seen) in range(1000)
    with pytest.raises(OSError, match="refused"):
        read(f"http://127.0.0.1:{port}/metrics")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_port_that_is_taken_ends_the_run_before_it_computes(
    extract: Callable[..., dict[str, Any]], tmp_path: Path, engine: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"^metrics\.port: cannot listen at 127\.0\.0\.1:{port} "):
            extract(engine, port=port)
    assert not list((tmp_path / "out").rglob("*.parquet"))


def test_requests_of_an_object_store_are_counted(
    s3: Any, prepare: Callable[..., Any], models: Path, tmp_path: Path
) -> None:
    write_corpus(tmp_path / "in")
    s3.put(f"{tmp_path}/in/", "s3://corpus/in/", recursive=True)
    path = tmp_path / "t.prom"
    settings = config(
        tmp_path / "in",
        {"i": IMAGE, "a": AUDIO},
        source={"kind": "files", "path": "s3://corpus/in"},
        metrics={"textfile": str(path)},
    )
    report = run.extract(prepare(settings, False, None, "inline"), show_progress=False)
    assert report["storage_requests"] > 0
    _check(report, Exposition(path.read_text()))
