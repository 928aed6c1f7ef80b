"""A retry loses no cell: what fails now and was there before stays."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from pipeline import dataset, snapshots
from pipeline.schema import FAILURES
from pipeline.snapshots import File
from tests.test_nights import PICTURE, counts, draw, night

SOUND = {
    "modality": "audio",
    "tokenizer": {"kind": "audio_frame", "sample_rate": 8000},
    "encoder": {"kind": "raw"},
    "emit": ["tokens"],
}


def _lose(root: Path, feature: str, window: int) -> None:
    """Makes of a row's cell a failure of reading, as a run writes it."""
    base = snapshots.newest(str(root))
    assert base is not None
    (shard,) = base.shards
    table = pq.read_table(root / shard.path)
    for name in table.column_names:
        if name.startswith(f"{feature}_"):
            at, field = table.schema.get_field_index(name), table.schema.field(name)
            kept = [
                None if w == window else v
                for w, v in zip(table["window"].to_pylist(), table[name].to_pylist(), strict=True)
            ]
            table = table.set_column(at, field, pa.array(kept, field.type))
    pq.write_table(table, root / shard.path)
    run_id = "20260101T000000-0001"
    failure = {
        "sample_id": table["sample_id"][0].as_py(),
        "window": window,
        "source_version": table["source_version"][0].as_py(),
        "feature": feature,
        "uri": "u",
        "stage": "decode",
        "kind": "io",
        "message": "m",
        "attempts": 1,
        "row_written": True,
        "run_id": run_id,
    }
    path = f"_failures/{run_id}-000000.parquet"
    (root / "_failures").mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist([failure], schema=FAILURES), root / path)
    following = snapshots.following(base, run_id, "extract", base.identities, [shard], [File(path, 1, 1, "0" * 64)], [])
    assert snapshots.commit(str(root), following)


def test_the_other_cell_fails_in_the_retry(ray_session: Any, tmp_path: Path) -> None:
    """The sound of the second window could not be read. When it can, the picture beside it cannot."""
    draw(tmp_path, "a", 50)
    wave = np.random.default_rng(0).normal(0, 0.1, 8000 * 3).astype(np.float32)
    soundfile.write(tmp_path / "in" / "a.wav", wave, 8000, subtype="FLOAT")
    more = {
        "features": {"p": PICTURE, "s": SOUND},
        "window": {"length_s": 1, "repeat_tokens": True},
        "failures": {"max_fraction": 1.0, "allow_all": True},
    }
    night(tmp_path, **more)
    root = tmp_path / "out" / "v1"
    before = dataset.open(str(tmp_path / "out")).to_arrow().sort_by("window")
    assert before["sample_id"].to_pylist() == ["a"] * 3
    _lose(root, "s", 1)
    picture = tmp_path / "in" / "a.png"
    status, size = picture.stat(), picture.stat().st_size
    picture.write_bytes(bytes(size))
    os.utime(picture, ns=(status.st_atime_ns, status.st_mtime_ns))
    report = night(tmp_path, **more)
    assert counts(report) == {"retried": 1}
    after = dataset.open(str(tmp_path / "out"))
    rows = after.to_arrow().sort_by("window")
    for name in ("p_tokens", "p_grid", "s_tokens", "s_times", "start_s", "end_s"):
        assert rows[name].to_pylist() == before[name].to_pylist(), name
    assert {one["feature"] for one in after.failures().to_pylist()} <= {"p"}
    assert not [one for one in after.failures().to_pylist() if one["stage"] == "decode"]


def test_the_file_cannot_be_opened_in_the_retry(tmp_path: Path) -> None:
    """Its windows are not known then: those that the dataset has stay, and are tried again once more."""
    from pipeline.config import parse
    from pipeline.difference import EXTRA
    from pipeline.features import bind
    from pipeline.schema import LISTING
    from pipeline.stages.probe import ProbeStage

    wave = np.random.default_rng(0).normal(0, 0.1, 8000 * 3).astype(np.float32)
    (tmp_path / "in").mkdir()
    raw = {
        "source": {"kind": "files", "path": str(tmp_path / "in")},
        "output": {"path": str(tmp_path / "out")},
        "window": {"length_s": 1},
        "features": {"s": SOUND, "t": SOUND},
    }
    config = parse(raw)
    soundfile.write(tmp_path / "in" / "a.wav", wave, 8000, subtype="FLOAT")
    stage = ProbeStage(config, bind(config))
    stage.setup()
    sample = {
        "sample_id": "a.wav",
        "source_version": "v",
        "audio_uri": str(tmp_path / "in" / "gone.wav"),
        "replaces": True,
        "windows_done": [0],
        "attempts": [{"window": window, "feature": "s", "attempts": 1} for window in (1, 2)],
        "carry": [{"window": window, "file": 4, "position": 10 + window} for window in (1, 2)],
    }
    schema = pa.schema([*LISTING, *EXTRA])
    rows = stage(pa.Table.from_pylist([sample], schema=schema)).to_pylist()
    assert [(row["window"], row["kept"], row["carry_file"], row["carry_position"]) for row in rows] == [
        (1, True, 4, 11),
        (2, True, 4, 12),
    ]
    assert [[one["kind"] for one in row["failures"]] for row in rows] == [["missing", "missing"], []]
    assert [(row["final"], row["promised"], row["retried"]) for row in rows] == [(False, 0, True), (True, 2, True)]
    lost = {**sample, "windows_done": []}  # of window 0 the dataset has a failure and no row
    rows = stage(pa.Table.from_pylist([lost], schema=schema)).to_pylist()
    assert [(row["window"], row["kept"], len(row["failures"])) for row in rows] == [
        (0, False, 2),
        (1, True, 0),
        (2, True, 0),
    ]
    new = {**sample, "replaces": False, "attempts": [], "carry": [], "windows_done": []}
    (row,) = stage(pa.Table.from_pylist([new], schema=schema)).to_pylist()
    assert (row["window"], row["kept"], row["retried"]) == (0, False, False)
