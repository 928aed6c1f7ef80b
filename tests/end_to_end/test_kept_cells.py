"""A retry loses no cell: what fails now and was there before stays."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from pipeline import dataset
from pipeline.core.schema import FAILURES
from pipeline.dataset.commit import snapshots
from pipeline.dataset.commit.data_files import File, FileSet
from tests.end_to_end.test_nights import PICTURE, counts, draw, night

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
    files = FileSet((shard,), (File(path, 1, 1, "0" * 64),))
    next_snapshot = snapshots.next_snapshot(base, run_id, "extract", base.identities, files)
    assert snapshots.commit(str(root), next_snapshot)


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


def _swap(path: Path, data: bytes) -> bytes:
    """Other bytes in a file of the same size and time, so that the listing sees no change; returns those before."""
    status, before = path.stat(), path.read_bytes()
    path.write_bytes(data.ljust(status.st_size, b"\0")[: status.st_size] if data else bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    return before


def _sound(path: Path, seconds: int, broken_s: int | None = None) -> None:
    wave = np.random.default_rng(len(path.name)).normal(0, 0.1, 8000 * seconds).astype(np.float32)
    if broken_s is not None:
        wave[8000 * broken_s + 100] = np.nan
    soundfile.write(path, wave, 8000, subtype="FLOAT")


TEXT = {"modality": "text", "tokenizer": {"kind": "text"}, "encoder": {"kind": "raw"}, "emit": ["token_ids"]}


def test_what_cannot_be_read_in_the_retry_costs_nothing_that_is_there(
    ray_session: Any, tmp_path: Path, models: Path
) -> None:
    """In the first night one file of each sample cannot be read, in the second another, and what can be read then is
    computed. Each cell has a value of one of the nights, or a failure."""
    folder = tmp_path / "in"
    for name in ("still", "image_back", "sound_back", "limited"):
        draw(tmp_path, name, 100)
        _sound(folder / f"{name}.wav", 4 if name == "limited" else 3, 1 if name == "still" else None)
    _sound(folder / "words.wav", 3)
    (folder / "words.txt").write_text("a man and a dog")
    hidden = {name: _swap(folder / f"{name}.png", b"") for name in ("still", "image_back", "limited")}
    hidden |= {name: _swap(folder / f"{name}.wav", b"") for name in ("sound_back", "words")}
    more = {
        "features": {
            "p": PICTURE,
            "s": SOUND,
            "t": {**TEXT, "tokenizer": {"kind": "text", "checkpoint": str(models / "bert")}},
        },
        "window": {"length_s": 1, "repeat_tokens": True},
        "failures": {"max_fraction": 1.0, "allow_all": True},
    }
    night(tmp_path, **more)
    first = _cells(tmp_path)
    assert {name: windows for (name, window), windows in first.items() if window == 0} == {
        "still": {"s"},
        "image_back": {"s"},
        "limited": {"s"},
        "sound_back": {"p"},
        "words": {"t"},
    }
    before = {(row["sample_id"], row["window"]): row for row in _rows(tmp_path)}
    _swap(folder / "image_back.png", hidden["image_back"])
    _swap(folder / "image_back.wav", b"")
    _swap(folder / "sound_back.wav", hidden["sound_back"])
    _swap(folder / "sound_back.png", b"")
    _swap(folder / "words.wav", hidden["words"])
    _swap(folder / "words.txt", b"")
    report = night(tmp_path, retry_failures=True, **{**more, "window": {**more["window"], "max_windows": 3}})
    assert counts(report) == {"retried": 5}
    assert _cells(tmp_path) == {
        **{("still", window): {"s"} for window in (0, 2)},
        **{("image_back", window): {"p", "s"} for window in range(3)},
        ("sound_back", 0): {"p", "s"},
        **{("sound_back", window): {"s"} for window in (1, 2)},
        **{("limited", window): {"s"} for window in range(4)},
        ("words", 0): {"s", "t"},
        **{("words", window): {"s"} for window in (1, 2)},
    }
    for row in _rows(tmp_path):
        old = before.get((row["sample_id"], row["window"]), {})
        for name in ("p_tokens", "s_tokens", "s_times", "t_token_ids"):
            if old.get(name) is not None:
                assert row[name] == old[name], (row["sample_id"], row["window"], name)
        assert row["end_s"] is not None
    failures = dataset.open(str(tmp_path / "out")).failures().to_pylist()
    assert {(one["sample_id"], one["window"], one["feature"], one["attempts"]) for one in failures} == {
        ("still", 0, "p", 2),
        ("still", 1, "s", 2),
        ("image_back", 0, "s", 1),
        ("sound_back", 0, "p", 1),
        ("limited", 0, "p", 2),
        ("limited", 0, "s", 1),
        ("words", 0, "t", 1),
    }


def _rows(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = dataset.open(str(folder / "out")).to_arrow().to_pylist()
    return rows


def _cells(folder: Path) -> dict[tuple[str, int], set[str]]:
    """(sample, window) -> the features that its row has."""
    columns = {"p": "p_tokens", "s": "s_tokens", "t": "t_token_ids"}
    return {
        (row["sample_id"], row["window"]): {name for name, column in columns.items() if row[column] is not None}
        for row in _rows(folder)
    }


def test_the_file_cannot_be_opened_in_the_retry(tmp_path: Path) -> None:
    """Its windows are not known then: those that the dataset has stay, and are tried again once more."""
    from pipeline.config.features import bind
    from pipeline.config.loading import parse
    from pipeline.core.schema import LISTING
    from pipeline.dataset.diff.columns import EXTRA
    from pipeline.stages.probe import ProbeStage
    from pipeline.stages.reuse import StoredTimes

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
    shard = tmp_path / "out" / "v1" / "data" / "20260101T000000-0001-000000.parquet"
    shard.parent.mkdir(parents=True)
    times = {"start_s": [float(i % 3) for i in range(15)], "end_s": [float(i % 3 + 1) for i in range(15)]}
    pq.write_table(pa.table(times), shard)
    files = [File(f"data/{shard.name}", 15, 1, "0" * 64)] * 5
    stage = ProbeStage(config, bind(config), own_times=StoredTimes(str(tmp_path / "out" / "v1"), files))
    stage.setup()
    sample = {
        "sample_id": "a.wav",
        "source_version": "v",
        "audio_uri": str(tmp_path / "in" / "gone.wav"),
        "replaces": True,
        "windows_done": [0],
        "attempts": [{"window": window, "feature": "s", "attempts": 1} for window in (1, 2)],
        "carry": [{"window": window, "file": 4, "position": 9 + window} for window in (1, 2)],
    }
    schema = pa.schema([*LISTING, *EXTRA])
    rows = stage(pa.Table.from_pylist([sample], schema=schema)).to_pylist()
    assert [(row["window"], row["start_s"], row["carry_file"], row["carry_position"]) for row in rows] == [
        (1, 1.0, 4, 10),
        (2, 2.0, 4, 11),
    ]
    assert [[one["kind"] for one in row["failures"]] for row in rows] == [["missing", "missing"], []]
    assert [(row["final"], row["promised"]) for row in rows] == [(False, 0), (True, 2)]
    lost = {**sample, "windows_done": []}  # of window 0 the dataset has a failure and no row
    rows = stage(pa.Table.from_pylist([lost], schema=schema)).to_pylist()
    assert [(row["window"], row["start_s"], len(row["failures"])) for row in rows] == [
        (0, None, 2),
        (1, 1.0, 0),
        (2, 2.0, 0),
    ]
    new = {**sample, "replaces": False, "attempts": [], "carry": [], "windows_done": []}
    (row,) = stage(pa.Table.from_pylist([new], schema=schema)).to_pylist()
    assert (row["window"], row["attempts"]) == (0, None)
