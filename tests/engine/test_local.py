"""The engine for one machine: a death costs one row, and nothing outlives a run. See also `test_contract`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest
from PIL import Image

from pipeline import dataset, run
from pipeline.core.errors import TesseraError
from pipeline.engine._block_queue import BlockQueue
from pipeline.engine._shard_pool import ShardPool
from pipeline.engine.spec import SinkSpec
from pipeline.run import pipeline
from pipeline.stages.decode import DecodeStage
from pipeline.stages.units import unit_table
from tests.stages.media_fixtures import IMAGE, config
from tests.support import ROOT

Prepare = Callable[..., Any]


def _settings(folder: Path, reds: list[int], **more: Any) -> Any:
    """A config that extracts pictures of these reds, which are named by their number."""
    (folder / "in").mkdir()
    for i, red in enumerate(reds):
        Image.new("RGB", (32, 32), (red, 0, 255)).save(folder / "in" / f"{i:03d}.png")
    return config(folder / "in", {"i": IMAGE}, **{"compute": {"block_rows": 5, "num_cpus": 2}, **more})


def _extracted(prepare: Prepare, settings: Any, monkeypatch: pytest.MonkeyPatch, **stages: type) -> dict[str, Any]:
    for name, stage in stages.items():
        monkeypatch.setattr(pipeline, name, stage)
    return run.extract(prepare(settings, False, None, "local"), show_progress=False)


class SlowDecode(DecodeStage):
    def __call__(self, table: pa.Table) -> pa.Table:
        time.sleep(0.1)
        return super().__call__(table)


def test_kills_from_outside_lose_nothing_and_blame_nobody(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random processes of the run are killed, ten times."""
    over, killed = threading.Event(), list[str]()

    def kill() -> None:
        while not over.wait(0.3) and len(killed) < 10:
            names = {"tessera-decode", "tessera-encode", "tessera-probe", "tessera-slowdec"}
            found = [one for one in psutil.Process().children(recursive=True) if one.name() in names]
            if found:
                victim = found[len(killed) % len(found)]
                killed.append(victim.name())
                victim.send_signal(signal.SIGKILL)

    settings = _settings(tmp_path, [i % 200 for i in range(200)])
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        report = _extracted(prepare, settings, monkeypatch, DecodeStage=SlowDecode)
    finally:
        over.set()
        killer.join()
    assert len(killed) >= 3
    assert (report["rows_written"], report["rows_failed"]) == (200, 0)
    ids = dataset.open(str(tmp_path / "out")).to_arrow(columns=["sample_id"])["sample_id"].to_pylist()
    assert sorted(ids) == [f"{i:03d}.png" for i in range(200)]


def _processes_of(marker: str) -> list[psutil.Process]:
    """The processes whose environment holds ``marker``."""
    found = []
    for one in psutil.process_iter():
        try:
            if marker in one.environ().values() and one.status() != psutil.STATUS_ZOMBIE:
                found.append(one)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_the_driver(tmp_path: Path, number: signal.Signals) -> None:
    """And the next run continues."""
    settings = _settings(tmp_path, [i % 200 for i in range(300)])
    path = tmp_path / "c.yaml"
    path.write_text(settings.model_dump_json())
    environment = {**os.environ, "TESSERA_TEST_RUN": str(tmp_path)}
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-m", "jobs.cli", "extract", str(path), "--engine", "local"]
    driver = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while len(_processes_of(str(tmp_path))) < 5 and driver.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert driver.poll() is None, driver.communicate()
    driver.send_signal(number)
    driver.communicate(timeout=60)
    deadline = time.monotonic() + (1.0 if number == signal.SIGKILL else 0.1)
    while (left := _processes_of(str(tmp_path))) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left
    again = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert dataset.open(str(tmp_path / "out")).num_rows == 300


def test_as_many_workers_as_cores(prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _settings(tmp_path, [1] * 40, compute={"block_rows": 2, "num_cpus": 3})
    seen = set[int]()

    def look() -> None:
        while not over.wait(0.05):
            for one in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):  # it has ended
                    seen.update([one.pid] if one.name() == "tessera-encode" else [])

    over = threading.Event()
    looker = threading.Thread(target=look)
    looker.start()
    report = _extracted(prepare, settings, monkeypatch)
    over.set()
    looker.join()
    assert report["devices"] == {"nodes": 1, "cpus": 3, "gpus": 0}
    assert len(seen) == 3


def test_the_block_nearest_to_its_end_is_taken_first() -> None:
    queue = BlockQueue([("u", 0, 1), ("u", 1, 1)], [None, None])
    block = pa.table({"n": [1]})
    assert queue.take(range(2)) == (0, unit_table(("u", 0, 1)))
    queue.put(1, block)
    assert queue.take(range(2)) == (1, block)
    assert queue.take(range(2)) == (0, unit_table(("u", 1, 1)))
    for _ in range(3):
        queue.finish()
    assert queue.take(range(2)) is None
    queue.wait()


def test_the_first_error_of_a_worker_ends_the_others() -> None:
    queue = BlockQueue([("u", i, 1) for i in range(3)], [None, None])
    assert queue.take(range(2)) is not None
    queue.finish(ValueError("first"))
    assert queue.take(range(2)) is None
    with pytest.raises(ValueError, match="first"):
        queue.wait()


def test_a_thread_that_is_late_publishes_nothing() -> None:
    class Writer:
        tables, closed, aborted = 0, False, False

        def add(self, table: pa.Table) -> None:
            self.tables += 1
            pool.abort()  # the run ends while this thread writes

        def close(self) -> None:
            self.closed = True

        def abort(self) -> None:
            self.aborted = True

    writer: Any = Writer()
    pool = ShardPool(SinkSpec(lambda name: writer, "r", 1))
    with pytest.raises(TesseraError, match="the run is over"):
        pool.add(pa.table({"n": [1]}))
    assert (writer.tables, writer.closed, writer.aborted) == (1, False, True)
    with pytest.raises(TesseraError, match="the run is over"):
        pool.add(pa.table({"n": [1]}))
    assert writer.tables == 1
