"""Night after night: what is new, changed, deleted or failed before is computed, and nothing else; nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline import config as configs
from pipeline import dataset, run
from pipeline.core.errors import BudgetExceeded, ConfigError
from pipeline.dataset import maintenance
from pipeline.dataset.commit.transaction import Transaction
from tests.support import ROOT, local_runs

PICTURE = {
    "modality": "image",
    "tokenizer": {"kind": "patch", "size": 16, "patch_size": 8},
    "encoder": {"kind": "raw"},
    "emit": ["tokens"],
}


def config(folder: Path, **more: Any) -> configs.PipelineConfig:
    raw: dict[str, Any] = {
        "source": {"kind": "files", "path": str(folder / "in")},
        "output": {"path": str(folder / "out")},
        "features": {"p": PICTURE},
        "failures": {"max_fraction": 1.0},
        "decoders": {"limits": {"isolate": False}},
    }
    return configs.parse({**raw, **more})


def night(folder: Path, retry_failures: bool = False, **more: Any) -> dict[str, Any]:
    return run.extract(local_runs.prepare(config(folder, **more)), show_progress=False, retry_failures=retry_failures)


def draw(folder: Path, name: str, colour: int) -> None:
    path = folder / "in" / f"{name}.png"
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (20, 20), (colour, 0, 0)).save(path)


def shown(folder: Path, **options: Any) -> dict[str, int]:
    """sample -> colour, as the dataset has it."""
    table = dataset.open(str(folder / "out"), **options).to_arrow(["sample_id", "p_tokens"])
    rows = table.to_pylist()
    assert len({row["sample_id"] for row in rows}) == len(rows)
    return {row["sample_id"].removesuffix(".png"): round(row["p_tokens"][0][0] * 255) for row in rows}


def plain(folder: Path) -> list[str]:
    """What a reader sees that knows nothing of snapshots."""
    return sorted(pq.ParquetDataset(folder / "out" / "v1" / "data").read(["sample_id"])["sample_id"].to_pylist())


def counts(report: dict[str, Any]) -> dict[str, int]:
    return {name: count for name, count in report["samples_by_class"].items() if count}


def test_nights(ray_session: Any, tmp_path: Path) -> None:
    for i in range(12):
        draw(tmp_path, f"s{i:02}", i)
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    plan = run.plan(local_runs.prepare(config(tmp_path)))
    assert (plan.samples, plan.difference.counts.new) == (13, 13)
    assert not (tmp_path / "out").exists()
    first = night(tmp_path)
    assert counts(first) == {"new": 13}
    expected = {f"s{i:02}": i for i in range(12)}
    assert shown(tmp_path) == expected
    old = dataset.open(str(tmp_path / "out"))

    again = night(tmp_path)
    assert counts(again) == {"unchanged": 13}
    assert (again["decoded"], again["bytes_read"], again["snapshot"], again["samples"]) == (0, 0, 1, 0)

    draw(tmp_path, "s03", 103)
    draw(tmp_path, "new", 200)
    os.unlink(tmp_path / "in" / "s05.png")
    before = sorted(tmp_path.rglob("*"))
    assert run.plan(local_runs.prepare(config(tmp_path))).difference.counts.changed == 1
    assert sorted(tmp_path.rglob("*")) == before
    third = night(tmp_path)
    assert counts(third) == {"new": 1, "changed": 1, "deleted": 1, "unchanged": 11}
    assert third["decoded"] == 2
    expected |= {"s03": 103, "new": 200}
    del expected["s05"]
    assert shown(tmp_path) == expected
    assert dataset.open(str(tmp_path / "out")).num_rows == 12
    assert dataset.open(str(tmp_path / "out")).num_failures == 1
    # appended and replaced rows are there for a plain reader; what they replace until the compaction
    assert set(plain(tmp_path)) == {f"{name}.png" for name in [*expected, "s05"]}

    assert shown(tmp_path, snapshot=1) == {f"s{i:02}": i for i in range(12)}
    assert len(old.to_arrow()) == 12
    left = os.listdir(tmp_path / "out" / "v1" / "_runs" / third["run_id"])
    assert sorted(left) == ["config.json", "judged.json", "report.json"]
    assert os.listdir(tmp_path / "out" / "v1" / "_running") == []

    other = {"p": {**PICTURE, "tokenizer": {"kind": "patch", "size": 24, "patch_size": 8}}}
    for call in (run.plan, run.extract):
        with pytest.raises(
            ConfigError, match=r"features\.p\.feature\.tokenizer\.size is 16 there, 24 here.*--new-version"
        ):
            call(local_runs.prepare(config(tmp_path, features=other)))
    with pytest.raises(ConfigError, match=r"features\.q is not in the dataset"):
        run.plan(local_runs.prepare(config(tmp_path, features={"p": PICTURE, "q": PICTURE})))


@pytest.mark.slow
def test_failures_are_tried_again_by_kind(ray_session: Any, tmp_path: Path) -> None:
    draw(tmp_path, "a", 1)
    (tmp_path / "in" / "corrupt.png").write_bytes(b"no picture")
    (tmp_path / "in" / "gone.png").symlink_to(tmp_path / "in" / "later")
    assert night(tmp_path)["failures_by_kind"] == {"missing": 1, "unsupported": 1}
    second = night(tmp_path)
    assert counts(second) == {"unchanged": 2, "retried": 1}
    attempts = {row["sample_id"]: row["attempts"] for row in dataset.open(str(tmp_path / "out")).failures().to_pylist()}
    assert attempts == {"gone.png": 2, "corrupt.png": 1}
    night(tmp_path)
    assert counts(night(tmp_path)) == {"unchanged": 3}, "three attempts are enough"
    all_of_them = night(tmp_path, retry_failures=True)
    assert counts(all_of_them) == {"unchanged": 1, "retried": 2}
    assert dataset.open(str(tmp_path / "out")).num_failures == 2
    Image.new("RGB", (20, 20), (7, 0, 0)).save(tmp_path / "in" / "corrupt.png")
    mended = night(tmp_path)
    assert counts(mended) == {"unchanged": 2, "changed": 1}
    assert shown(tmp_path) == {"a": 1, "corrupt": 7}
    assert [row["sample_id"] for row in dataset.open(str(tmp_path / "out")).failures().to_pylist()] == ["gone.png"]


def test_deleted_samples_may_be_kept(ray_session: Any, tmp_path: Path) -> None:
    draw(tmp_path, "a", 1)
    draw(tmp_path, "b", 2)
    night(tmp_path)
    os.unlink(tmp_path / "in" / "b.png")
    kept = {"output": {"path": str(tmp_path / "out"), "on_delete": "keep"}}
    assert counts(night(tmp_path, **kept)) == {"unchanged": 1, "deleted": 1}
    assert shown(tmp_path) == {"a": 1, "b": 2}
    night(tmp_path)
    assert shown(tmp_path) == {"a": 1}


@pytest.mark.slow
def test_a_window_that_failed_is_completed_not_doubled(ray_session: Any, tmp_path: Path) -> None:
    """A sound whose second window cannot be read for a while: its other windows stay as they are."""
    import soundfile

    (tmp_path / "in").mkdir()
    wave = np.random.default_rng(0).normal(0, 0.1, 8000 * 3).astype(np.float32)
    soundfile.write(tmp_path / "in" / "a.wav", wave, 8000, subtype="FLOAT")
    sound = {
        "modality": "audio",
        "tokenizer": {"kind": "audio_frame", "sample_rate": 8000},
        "encoder": {"kind": "raw"},
        "emit": ["tokens"],
    }
    more = {"features": {"s": sound}, "window": {"length_s": 1}}
    night(tmp_path, **more)
    root = tmp_path / "out" / "v1"
    # what a run leaves when reading failed at window 1: the row is not there, a failure is
    from pipeline.core.schema import FAILURES
    from pipeline.dataset.commit import snapshots
    from pipeline.dataset.commit.data_files import File, FileSet

    base = snapshots.newest(str(root))
    assert base is not None
    (shard,) = base.shards
    (root / "failures").mkdir(exist_ok=True)
    run_id = "20260101T000000-0001"
    failures = f"failures/{run_id}-000000.parquet"
    version = pq.read_table(root / shard.path)["source_version"].to_pylist()[0]
    failure = {
        "sample_id": "a.wav",
        "window": 1,
        "source_version": version,
        "feature": "s",
        "uri": "u",
        "stage": "decode",
        "kind": "io",
        "message": "m",
        "attempts": 1,
        "row_written": False,
        "run_id": run_id,
    }
    pq.write_table(FAILURES.empty_table().from_pylist([failure], schema=FAILURES), root / failures)
    files = FileSet((shard.without([1]),), (File(failures, 1, 1, "0" * 64),))
    broken = snapshots.next_snapshot(base, run_id, "extract", base.identities, files)
    assert snapshots.commit(str(root), broken)
    report = night(tmp_path, **more)
    assert counts(report) == {"retried": 1}
    assert (report["rows_planned"], report["decoded"]) == (1, 1)
    table = dataset.open(str(tmp_path / "out")).to_arrow().sort_by("window")
    assert table["window"].to_pylist() == [0, 1, 2]
    found = np.concatenate([np.ravel(row) for row in table["s_tokens"].to_pylist()])
    np.testing.assert_allclose(found, wave, atol=1e-3)
    assert dataset.open(str(tmp_path / "out")).num_failures == 0


def test_a_killed_run_is_continued(ray_session: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dead right before the commit: everything is adopted and nothing decoded; with a task's record gone, its part."""
    for i in range(6):
        draw(tmp_path, f"s{i}", i)
    night(tmp_path)
    for i in range(3, 9):
        draw(tmp_path, f"s{i}", 100 + i)
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    root = tmp_path / "out" / "v1"

    def die(self: Any, snapshot: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Transaction, "commit", die)
        with pytest.raises(KeyboardInterrupt):
            night(tmp_path)
    assert shown(tmp_path) == {f"s{i}": i for i in range(6)}
    assert len(os.listdir(root / "_running")) == 1
    with pytest.raises(BudgetExceeded, match=r"1 of 7 rows failed \(14\.3%; 1 in the run that was killed\)") as over:
        night(tmp_path, failures={"max_rows": 0})
    report = over.value.report
    assert report["decoded"] == 0
    found = {"new": 4, "changed": 3, "unchanged": 3, "adopted": 7, "rows_adopted": 7, "rows_adopted_with_failures": 1}
    found |= {"new_rows_adopted": 7, "new_rows_adopted_with_failures": 1}
    assert counts(report) == found
    assert dataset.open(str(tmp_path / "out")).num_failures == 1
    assert shown(tmp_path) == {f"s{i}": i if i < 3 else 100 + i for i in range(9)}
    assert os.listdir(root / "_running") == []

    draw(tmp_path, "more", 50)
    with monkeypatch.context() as patch:
        patch.setattr(Transaction, "commit", die)
        with pytest.raises(KeyboardInterrupt):
            night(tmp_path)
    (record,) = root.glob("_runs/*/tasks/*.parquet")
    record.unlink()
    draw(tmp_path, "s0", 60)
    report = night(tmp_path)
    assert counts(report) == {"new": 1, "changed": 1, "unchanged": 9}
    assert shown(tmp_path) == {f"s{i}": i if i < 3 else 100 + i for i in range(9)} | {"more": 50, "s0": 60}
    assert json.loads((root / "_runs" / report["run_id"] / "report.json").read_text())["snapshot"] == 3
    assert plain(tmp_path).count("more.png") == 1


@pytest.mark.slow
def test_a_new_version_copies_what_did_not_change(ray_session: Any, tmp_path: Path) -> None:
    """A file changes behind the back of its time stamp: what is copied has its old colour, what is computed the new."""
    for i in range(5):
        draw(tmp_path, f"s{i}", 10 + i)
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    night(tmp_path)
    path = tmp_path / "in" / "s1.png"
    before = path.stat()
    draw(tmp_path, "s1", 99)
    os.truncate(path, before.st_size) if path.stat().st_size > before.st_size else None
    with path.open("ab") as file:
        file.write(b"\0" * (before.st_size - path.stat().st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    draw(tmp_path, "s2", 77)  # openly
    draw(tmp_path, "s9", 9)
    wide = {**PICTURE, "tokenizer": {"kind": "patch", "size": 8, "patch_size": 8}}
    more = {"features": {"p": PICTURE, "q": wide}}
    with pytest.raises(ConfigError, match=r"features\.q is not in the dataset"):
        night(tmp_path, **more)
    report = run.extract(local_runs.prepare(config(tmp_path, **more), new_version=True), show_progress=False)
    assert (report["version"], counts(report)) == ("v2", {"new": 7})
    assert report["cells"] == {"planned": 14, "written": 12, "failed": 2}
    rows = {row["sample_id"]: row for row in dataset.open(str(tmp_path / "out")).to_arrow().to_pylist()}
    colours = {
        name.removesuffix(".png"): tuple(round(row[f"{f}_tokens"][0][0] * 255) for f in "pq")
        for name, row in rows.items()
    }
    assert colours == {"s0": (10, 10), "s1": (11, 99), "s2": (77, 77), "s3": (13, 13), "s4": (14, 14), "s9": (9, 9)}
    assert rows["s1.png"]["p_grid"] == [1, 2, 2]
    assert shown(tmp_path, version="v1") == {f"s{i}": 10 + i for i in range(5)}
    assert counts(night(tmp_path, **more)) == {"unchanged": 7}, "the new version is the current one"
    assert counts(night(tmp_path, output={"path": str(tmp_path / "out"), "version": "v1"}))["changed"] == 1
    with pytest.raises(ConfigError, match=r"output\.version: there is a version 'v1' already"):
        local_runs.prepare(config(tmp_path, output={"path": str(tmp_path / "out"), "version": "v1"}), new_version=True)
    # a modality more: pictures are where they were
    sound = {
        "modality": "audio",
        "tokenizer": {"kind": "audio_frame", "sample_rate": 8000},
        "encoder": {"kind": "raw"},
        "emit": ["tokens"],
    }
    report = run.extract(
        local_runs.prepare(config(tmp_path, features={"q": wide, "s": sound}), new_version=True), show_progress=False
    )
    assert (report["version"], report["cells"]["written"], report["decoded"]) == ("v3", 6, 0)


@pytest.mark.slow
def test_a_pinned_reader_sees_its_snapshot_during_and_after_later_runs(ray_session: Any, tmp_path: Path) -> None:
    """In a process of its own, again and again, while three nights and a compaction replace and delete its rows."""
    for i in range(24):
        draw(tmp_path, f"s{i:02}", i)
    more = {"compute": {"block_rows": 1}}  # 16 rows a shard
    night(tmp_path, **more)
    stop = tmp_path / "stop"
    program = "tests.end_to_end.programs.read_pinned_snapshot"
    command = [sys.executable, "-m", program, str(tmp_path / "out"), str(stop)]
    reader = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert reader.stdout is not None
    reader.stdout.readline()  # it reads
    expected, stale = {f"s{i:02}": i for i in range(24)}, list[str]()
    for number in range(3):
        changed, deleted, new = f"s{number:02}", f"s{10 + number}", f"n{number}"
        draw(tmp_path, changed, 100 + number)
        draw(tmp_path, new, 200 + number)
        os.unlink(tmp_path / "in" / f"{deleted}.png")
        assert counts(night(tmp_path, **more)) == {"new": 1, "changed": 1, "deleted": 1, "unchanged": 22}
        expected |= {changed: 100 + number, new: 200 + number}
        del expected[deleted]
        stale += [changed, deleted]
        assert shown(tmp_path) == expected
        # whoever knows nothing of snapshots sees every live row, and what is no more until the compaction
        assert plain(tmp_path) == sorted(f"{name}.png" for name in [*expected, *stale])
    maintenance.compact(str(tmp_path / "out"))
    assert plain(tmp_path) == sorted(f"{name}.png" for name in expected)
    assert shown(tmp_path) == expected
    stop.touch()
    reported, errors = reader.communicate(timeout=60)
    assert reader.returncode == 0, errors
    assert int(reported.split()[-2]) >= 5
    assert shown(tmp_path, snapshot=1) == {f"s{i:02}": i for i in range(24)}
