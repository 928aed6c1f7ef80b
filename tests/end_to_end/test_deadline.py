"""A run with a deadline commits what is finished, keeps what is stored of the rest, and the next ones complete it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline import dataset, run
from pipeline.config import PipelineConfig
from pipeline.config.models import EngineName
from pipeline.core.errors import TesseraError
from pipeline.dataset import maintenance
from pipeline.dataset.commit import catalog
from pipeline.engine import ENGINES
from pipeline.stages.encode import EncodeStage
from tests.end_to_end.test_nights import PICTURE, config, draw
from tests.stages.media_fixtures import VIDEO, write_clip

_FIRST_S: dict[EngineName, float] = {"inline": 0.5, "local": 1.0, "ray": 4.0}
"""Time of the first night. Each next one has a second more, so that some end in the middle on any machine."""
_MAX_NIGHTS = 30


class Slow(EncodeStage):
    """Takes 0.5 s for each block of four rows."""

    def __call__(self, table: pa.Table, journal: Any = None) -> pa.Table:
        time.sleep(0.5)
        return super().__call__(table, journal)


def _settings(folder: Path, engine: EngineName, **more: Any) -> PipelineConfig:
    return config(folder, compute={"block_rows": 4}, engine={"kind": engine}, decoders={}, **more)


def _colours(folder: Path, **options: Any) -> dict[str, int]:
    table = dataset.open(str(folder / "out"), **options).to_arrow(["sample_id", "p_tokens"])
    rows = table.to_pylist()
    assert len({row["sample_id"] for row in rows}) == len(rows), "a sample is stored twice"
    return {row["sample_id"].removesuffix(".png"): round(row["p_tokens"][0][0] * 255) for row in rows}


def _until_done(
    first_s: float, night: Callable[[float], dict[str, Any]], check: Callable[[dict[str, Any]], None]
) -> list[dict[str, Any]]:
    """Nights until one is complete. After each ``check`` is called with its report."""
    reports = list[dict[str, Any]]()
    while not reports or reports[-1]["status"] == "partial":
        assert len(reports) < _MAX_NIGHTS, reports
        reports.append(night(time.time() + first_s + len(reports)))
        check(reports[-1])
    return reports


@pytest.mark.parametrize(
    "name", [one if one == "local" else pytest.param(one, marks=pytest.mark.slow) for one in ENGINES]
)
def test_nights_that_are_cut_short(
    ray_session: Any, prepare: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: EngineName
) -> None:
    def night(until: float | None = None) -> dict[str, Any]:
        return run.extract(prepare(_settings(tmp_path, name)), show_progress=False, until=until)

    for i in range(40):
        draw(tmp_path, f"s{i:03}", i)
    (tmp_path / "in" / "gone.png").write_bytes(b"")
    assert night()["status"] == "complete"
    before = _colours(tmp_path)
    for i in range(16):
        draw(tmp_path, f"s{i:03}", 100 + i)
    for i in range(36, 40):
        (tmp_path / "in" / f"s{i:03}.png").unlink()
    for i in range(40, 80):
        draw(tmp_path, f"s{i:03}", i)
    after = {f"s{i:03}": 100 + i if i < 16 else i for i in range(80) if not 36 <= i < 40}
    monkeypatch.setattr("pipeline.run.pipeline.EncodeStage", Slow)

    def check(report: dict[str, Any]) -> None:
        found = _colours(tmp_path)
        assert all(found[one] in (before[one], after[one]) for one in before if one in after), "a stored row is lost"
        assert not {*found} - {*after}, "a deleted sample is stored"
        assert report["samples"] == report["rows_planned"]
        done = sum(found.get(one) == colour for one, colour in after.items())
        assert report["samples_left"] == len(after) - done

    reports = _until_done(_FIRST_S[name], night, check)
    assert _colours(tmp_path) == after
    assert sum(report["samples"] for report in reports) == 16 + 40
    assert any(0 < report["samples"] < 56 for report in reports), "no night was cut short in its middle"
    assert reports[-1]["samples_left"] == 0
    again = night()
    assert (again["samples"], again["samples_by_class"]["unchanged"]) == (0, 77)


def test_a_deadline_that_is_over_commits_only_deletions(prepare: Callable[..., Any], tmp_path: Path) -> None:
    for i in range(4):
        draw(tmp_path, f"s{i}", i)
    first = run.extract(prepare(_settings(tmp_path, "local")), show_progress=False, until=time.time() - 1)
    assert (first["status"], first["samples"], first["samples_left"], first["snapshot"]) == ("partial", 0, 4, 1)
    assert dataset.open(str(tmp_path / "out")).num_rows == 0
    assert run.extract(prepare(_settings(tmp_path, "local")), show_progress=False)["samples"] == 4
    draw(tmp_path, "s0", 50)
    (tmp_path / "in" / "s1.png").unlink()
    late = run.extract(prepare(_settings(tmp_path, "local")), show_progress=False, until=time.time() - 1)
    assert (late["samples_left"], late["samples_by_class"]["deleted"]) == (1, 1)
    assert _colours(tmp_path) == {"s0": 0, "s2": 2, "s3": 3}


@pytest.mark.slow
def test_a_new_version_is_not_current_before_it_is_complete(
    prepare: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(40):
        draw(tmp_path, f"s{i:03}", i)
    run.extract(prepare(_settings(tmp_path, "inline")), show_progress=False)
    monkeypatch.setattr("pipeline.run.pipeline.EncodeStage", Slow)
    larger = {"p": {**PICTURE, "tokenizer": {"kind": "patch", "size": 16, "patch_size": 4}}}
    out = {"path": str(tmp_path / "out"), "version": "v2"}

    def night(until: float) -> dict[str, Any]:
        settings = _settings(tmp_path, "inline", features=larger, output=out)
        return run.extract(prepare(settings), show_progress=False, until=until)

    def check(report: dict[str, Any]) -> None:
        is_partial = report["status"] == "partial"
        assert report["snapshot"] == (None if is_partial else 1)
        assert catalog.current(str(tmp_path / "out")) == ("v1" if is_partial else "v2")

    reports = _until_done(0.5, night, check)
    assert len(reports) > 1
    assert sum(report["samples"] for report in reports) == 40, "a later night took over what earlier ones finished"
    assert _colours(tmp_path, version="v2") == {f"s{i:03}": i for i in range(40)}


def test_windows_of_an_interrupted_run_are_not_committed_in_part(
    prepare: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed run leaves some windows of a long video; a run that does not begin that sample must not commit them."""
    (tmp_path / "in").mkdir()
    write_clip(tmp_path / "in" / "long.mp4", 12)
    settings = _settings(tmp_path, "inline", features={"v": VIDEO}, window={"length_s": 1})
    monkeypatch.setattr("pipeline.run.pipeline.EncodeStage", _DiesAtTheThirdBlock)
    monkeypatch.setattr("pipeline.run.pipeline._SINK_ROWS", 1)
    with pytest.raises(KeyboardInterrupt):
        _extract_in_tasks_of_a_block(prepare(settings), monkeypatch)
    monkeypatch.undo()
    partial = run.extract(prepare(settings), show_progress=False, until=time.time() - 1)
    assert (partial["status"], partial["samples_left"]) == ("partial", 1)
    assert dataset.open(str(tmp_path / "out")).num_rows == 0
    full = run.extract(prepare(settings), show_progress=False)
    assert full["samples"] == 1
    table = dataset.open(str(tmp_path / "out")).to_arrow(["window"])
    assert np.array_equal(np.sort(table["window"].to_numpy()), np.arange(12))
    maintenance.compact(str(tmp_path / "out"))
    assert dataset.open(str(tmp_path / "out")).num_rows == 12


class _DiesAtTheThirdBlock(EncodeStage):
    calls = 0

    def __call__(self, table: pa.Table, journal: Any = None) -> pa.Table:
        _DiesAtTheThirdBlock.calls += 1
        if _DiesAtTheThirdBlock.calls == 3:
            raise KeyboardInterrupt
        return super().__call__(table, journal)


def _extract_in_tasks_of_a_block(bound: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs on the engine `inline`, whose writer publishes a record after each table, as write tasks do."""
    from pipeline.dataset.shards.writer import ShardWriter

    opened = [0]

    class Publishes(ShardWriter):
        def add(self, table: pa.Table) -> None:
            opened[0] += 1
            name = f"{self.run_id}-{opened[0]:06d}"
            writer = ShardWriter(self.root, name, self.run_id, self.features, self.schema, self.output)
            writer.add(table)
            writer.close()

    monkeypatch.setattr("pipeline.run.pipeline.ShardWriter", Publishes)
    run.extract(bound, show_progress=False)


def test_a_unit_that_is_lost_is_no_unit_that_was_left(
    prepare: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline excuses units that were not begun, and no others."""
    for i in range(12):
        draw(tmp_path, f"s{i:03}", i)
    monkeypatch.setattr("pipeline.run.pipeline.EncodeStage", _LosesABlock)
    with pytest.raises(TesseraError, match=r"do not balance: .*unit 00000:\d has 4 samples, 0 arrived"):
        run.extract(prepare(_settings(tmp_path, "local")), show_progress=False, until=time.time() + 3)
    assert not list((tmp_path / "out").glob("v1/_snapshots/*"))


class _LosesABlock(EncodeStage):
    """Loses the block of the first sample, and takes the time of the night for each other."""

    def __call__(self, table: pa.Table, journal: Any = None) -> pa.Table:
        done = super().__call__(table, journal)
        if "s000.png" in table["sample_id"].to_pylist():
            return done.slice(0, 0)
        time.sleep(4)
        return done
