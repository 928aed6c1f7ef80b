"""Seven nights with everything that happens to nights: the summary of each, and the dataset right after each."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from pipeline import dataset
from pipeline.config.models import EngineName
from tests.end_to_end.test_nights import PICTURE
from tests.support import ROOT

_COLOURS = 200
_MANY = 1200


@dataclass
class Nights:
    """A corpus, a config and the command."""

    folder: Path
    engine: EngineName
    environment: dict[str, str]
    expected: dict[str, int] = field(default_factory=dict)
    """Sample -> colour, as the dataset should have it after a complete night."""

    def config(self, **more: Any) -> Path:
        raw = {
            "source": {"kind": "files", "path": str(self.folder / "in")},
            "output": {"path": str(self.folder / "out")},
            "features": {"p": PICTURE},
            "compute": {"block_rows": 8},
            "nightly": {"keep": "7d"},
            **more,
        }
        path = self.folder / "config.yaml"
        path.write_text(yaml.safe_dump(raw))
        return path

    def draw(self, name: str, colour: int) -> None:
        """Draws a picture of a megapixel, which takes some milliseconds to decode."""
        drawn = self.folder / "drawn" / f"{colour}.png"
        if not drawn.exists():
            drawn.parent.mkdir(exist_ok=True)
            Image.new("RGB", (1000, 1000), (colour, 0, 0)).save(drawn, compress_level=1)
        target = self.folder / "in" / f"{name}.png"
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(drawn, target)
        self.expected[name] = colour

    def remove(self, name: str) -> None:
        (self.folder / "in" / f"{name}.png").unlink()
        self.expected.pop(name, None)

    def start(self, *options: str, **more: Any) -> subprocess.Popen[str]:
        path = self.config(**more)
        command = [sys.executable, "-m", "jobs.cli", "nightly", str(path), "--engine", self.engine]
        return subprocess.Popen(
            [*command, "--summary", str(self.folder / "summary.json"), *options],
            env=self.environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def night(self, code: int, *options: str, **more: Any) -> dict[str, Any]:
        """Runs a night that ends with ``code``, and returns its summary."""
        process = self.start(*options, **more)
        output, errors = process.communicate(timeout=240)
        assert process.returncode == code, (output, errors)
        assert "Traceback" not in errors
        found = self.summary()
        assert (found["exit_code"], found["config"]) == (code, str(self.folder / "config.yaml"))
        return found

    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "summary.json").read_text())
        return found

    def latest(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "out" / "_nights" / "latest.json").read_text())
        return found

    def stored(self) -> dict[str, int]:
        table = dataset.open(str(self.folder / "out")).to_arrow(["sample_id", "p_tokens"])
        rows = table.to_pylist()
        assert len({row["sample_id"] for row in rows}) == len(rows)
        return {row["sample_id"].removesuffix(".png"): round(row["p_tokens"][0][0] * 255) for row in rows}

    def plain(self) -> list[str]:
        """What a reader sees that knows nothing of snapshots."""
        data = self.folder / "out" / "v1" / "data"
        ids = pq.ParquetDataset(data).read(["sample_id"])["sample_id"].to_pylist()
        return sorted(one.removesuffix(".png") for one in ids)


@pytest.mark.timeout(400)
@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_seven_nights(shared_ray: dict[str, str], tmp_path: Path, engine: EngineName) -> None:
    environment = shared_ray if engine == "ray" else {**os.environ}
    nights = Nights(tmp_path, engine, environment)

    for i in range(40):
        nights.draw(f"a{i:04}", i)
    first = nights.night(0)
    assert (first["status"], first["step"], first["cause"], first["alerts"]) == ("complete", "done", None, [])
    assert first["report"]["samples_by_class"]["new"] == 40
    assert first["lag"] == {"samples": 0, "since": None, "oldest_age_s": None}
    assert nights.latest() == first
    assert nights.stored() == nights.expected

    for i in range(10):
        nights.draw(f"a{i:04}", 100 + i)
    for i in range(30, 40):
        nights.remove(f"a{i:04}")
    nights.draw("b", 7)
    second = nights.night(0)
    classes = second["report"]["samples_by_class"]
    assert (classes["new"], classes["changed"], classes["deleted"], classes["unchanged"]) == (1, 10, 10, 20)
    assert second["compact"][0]["deleted_rows_left_out"] == 20
    assert second["snapshot"] > second["report"]["snapshot"]
    assert second["committed"] is True
    assert nights.stored() == nights.expected
    assert nights.plain() == sorted(nights.expected), "compaction has brought the folder up to date"

    for i in range(6):
        (tmp_path / "in" / f"bad{i}.png").write_bytes(b"no picture")
        nights.draw(f"c{i}", 60 + i)
    third = nights.night(0)
    assert third["status"] == "complete"
    limit = "more than nightly.alert.max_fraction 5.0%"
    assert third["alerts"] == [f"6 of 12 new rows failed (50.0%; 6 unsupported), {limit}"]
    assert nights.stored() == nights.expected

    for i in range(25):
        (tmp_path / "in" / f"worse{i}.png").write_bytes(b"no picture")
    fourth = nights.night(3)
    assert (fourth["status"], fourth["try_again"], fourth["step"]) == ("failed", False, "done")
    assert fourth["cause"].startswith("25 of 25 rows failed (100.0%; 25 unsupported)")
    assert fourth["report"]["rows_failed"] == 25
    assert nights.stored() == nights.expected
    for i in range(25):
        (tmp_path / "in" / f"worse{i}.png").unlink()

    before = nights.stored()
    (tmp_path / "in").rename(tmp_path / "moved")
    (tmp_path / "in").mkdir()
    shutil.copyfile(tmp_path / "moved" / "b.png", tmp_path / "in" / "b.png")
    moved = nights.night(2)
    assert moved["cause"].startswith("source: 67 of 68 stored samples are not listed any more")
    assert (moved["step"], moved["try_again"], moved["report"]["status"]) == ("extract", False, "broken off")
    assert (moved["committed"], moved["snapshot"]) == (False, fourth["snapshot"])
    assert nights.stored() == before
    shutil.rmtree(tmp_path / "in")
    (tmp_path / "moved").rename(tmp_path / "in")

    for i in range(_MANY):
        nights.draw(f"m{i:04}", i % _COLOURS)
    process = nights.start()
    deadline = time.monotonic() + 120
    old = {*(tmp_path / "out" / "v1" / "data").iterdir()}
    while not {*(tmp_path / "out" / "v1" / "data").iterdir()} - old:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    fifth = nights.summary()
    assert (fifth["status"], fifth["step"], fifth["exit_code"]) == ("running", "extract", None)
    assert fifth["pid"] == process.pid
    assert nights.stored() == before, "nothing of a night that was killed is committed"

    seconds, partial = 2.0, list[dict[str, Any]]()
    while not partial or (not partial[-1]["report"]["samples"] and partial[-1]["samples_left"]):
        partial.append(nights.night(9, "--deadline", f"{seconds}s", "--partial-exit", "9"))
        seconds += 1.0
    sixth = partial[-1]
    assert (sixth["status"], sixth["try_again"], sixth["cause"]) == ("partial", False, None)
    assert sixth["samples_left"] == sixth["lag"]["samples"] > 0
    assert sixth["lag"]["since"][:19] == fourth["report"]["started"][:19], "the last night that was complete"
    stored = nights.stored()
    assert {**before} == {name: stored[name] for name in before}
    assert {name: nights.expected[name] for name in stored} == stored
    assert len(stored) == len(nights.expected) - sixth["samples_left"]

    seventh = nights.night(0)
    assert (seventh["status"], seventh["samples_left"]) == ("complete", 0)
    assert nights.stored() == nights.expected
    assert nights.plain() == sorted(nights.expected)
    assert seventh["report"]["samples"] == sixth["samples_left"]
