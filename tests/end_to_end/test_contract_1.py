"""Datasets of contract 1 go on: read, continued, rolled back, and moved to today's folders, whatever dies meanwhile.

`tests.support.contract_1` makes them; `test_identity` compares identities of contract 1 with those that its last commit
stored.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from pipeline import dataset, run, sources, storage
from pipeline.core.errors import TesseraError
from pipeline.dataset import maintenance
from pipeline.dataset.commit import data_files, snapshots
from pipeline.dataset.commit.folder import DatasetFolder
from pipeline.run import checks
from tests.end_to_end.test_nights import config, counts, draw, shown
from tests.end_to_end.test_nights import night as extract
from tests.support import local_runs
from tests.support.contract_1 import downgrade
from tests.support.dataset_fixtures import RUNS, night


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three nights: two with a failure, of which one is replaced by a row in the third."""
    folder = tmp_path_factory.mktemp("made")
    root = folder / "v1"
    night(root, RUNS[1], ["a", "b"], {1: "corrupt"})
    night(root, RUNS[2], ["c", "d"], {0: "corrupt"})
    base = snapshots.newest(str(root))
    assert base is not None
    failures = base.failures[0].path
    night(root, RUNS[3], ["b"], drops={failures: [0]})
    downgrade(root)
    return folder


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "out"))


def read(out: Path, **options: Any) -> tuple[list[str], list[str]]:
    """Ids of rows, and of failures."""
    found = dataset.open(str(out), **options)
    rows, failures = found.to_arrow(["sample_id"]), found.failures()
    return sorted(rows["sample_id"].to_pylist()), sorted(failures["sample_id"].to_pylist())


MOMENTS = {1: (["a"], ["b"]), 2: (["a", "d"], ["b", "c"]), 3: (["a", "b", "d"], ["c"])}


def check(out: Path) -> None:
    """Each moment is what it was."""
    for number, expected in MOMENTS.items():
        assert read(out, snapshot=number) == expected, number


def test_it_is_read_as_it_is(out: Path) -> None:
    before = sorted(out.rglob("*"))
    check(out)
    assert read(out) == MOMENTS[3]
    assert sorted(out.rglob("*")) == before


WRITERS: dict[str, Callable[[Path], object]] = {
    "extract": lambda out: night(out / "v1", RUNS[8], ["new"]),
    "compact": lambda out: maintenance.compact(str(out)),
    "rollback": lambda out: maintenance.rollback(str(out), 2),
    "rollback to the first": lambda out: maintenance.rollback(str(out), 1),
    "forget": lambda out: maintenance.forget(str(out), ["unknown"]),
}
AFTER = {
    "extract": (["a", "b", "d", "new"], ["c"]),
    "compact": MOMENTS[3],
    "rollback": MOMENTS[2],
    "rollback to the first": MOMENTS[1],
    "forget": MOMENTS[3],
}


@pytest.mark.parametrize("what", list(WRITERS))
def test_the_next_writer_moves_the_failures(out: Path, what: str) -> None:
    WRITERS[what](out)
    assert read(out) == AFTER[what]
    check(out)
    root = out / "v1"
    assert not list((root / "failures").glob("*"))
    assert json.loads(max((root / "_snapshots").iterdir()).read_text())["contract"] == 2
    # other readers see the rows only
    rows = {*pd.read_parquet(root)["sample_id"]}
    assert rows == {*pq.read_table(root)["sample_id"].to_pylist()}
    assert rows == {*ds.dataset(root).to_table()["sample_id"].to_pylist()}
    assert {*AFTER[what][0]} <= rows <= {"a", "b", "d", "new"}
    if what == "forget":
        return  # what came before holds what was forgotten
    maintenance.rollback(str(out), 1)
    assert read(out) == MOMENTS[1]
    maintenance.vacuum(str(out), 0)
    assert read(out) == MOMENTS[1]
    assert not [path for path in root.rglob("*.parquet") if "failures" in str(path) and RUNS[2] in path.name]


@pytest.mark.parametrize("what", list(WRITERS))
def test_a_kill_before_any_move(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Before each move of files in turn the writer dies. Readers see one moment or the next, and whoever writes next
    moves the rest."""
    moved = 0
    real = storage.move

    class Dead(BaseException):
        pass

    def counted(*args: Any) -> None:
        nonlocal moved
        moved += 1
        if moved == fatal:
            raise Dead
        real(*args)

    monkeypatch.setattr(storage, "move", counted)
    for fatal in range(1, 20):
        copy = Path(shutil.copytree(out, tmp_path / f"copy{fatal}"))
        moved = 0
        try:
            WRITERS[what](copy)
        except Dead:
            assert read(copy) in (MOMENTS[3], AFTER[what])
            check(copy)
            shutil.rmtree(copy / "v1" / "_leases")  # else the next writer would wait for it
            moved = -1000
            night(copy / "v1", "20260110T000000-0010", ["later"])
            rows, failures = read(copy)
            assert (rows, failures) in [(sorted([*r, "later"]), f) for r, f in (MOMENTS[3], AFTER[what])]
            check(copy)
            assert not list((copy / "v1" / "failures").glob("*"))
        else:
            assert fatal > 1
            break
    else:
        raise AssertionError("it never ended")


def test_a_file_that_is_moved_while_it_is_looked_for(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(out / "v1")
    base = snapshots.newest(root)
    assert base is not None
    (file,) = base.failures
    real, asked = DatasetFolder.is_file, []

    def moving(self: DatasetFolder, path: str) -> bool:
        asked.append(path)
        if len(asked) == 2:  # it was not at its new place yet, and is not at the old one any more
            (out / "v1" / "_failures").mkdir()
            self.move(data_files.contract_1_path(file.path), file.path)
        return real(self, path)

    monkeypatch.setattr(DatasetFolder, "is_file", moving)
    assert data_files.find(root, file) == file.path


def test_a_run_of_today_continues_it(ray_session: Any, tmp_path: Path) -> None:
    for i in range(4):
        draw(tmp_path, f"s{i}", i)
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    extract(tmp_path)
    root = tmp_path / "out" / "v1"
    prepared = local_runs.prepare(config(tmp_path))
    downgrade(root, prepared)
    assert snapshots.newest(str(root)).contract == 1  # type: ignore[union-attr]

    nothing = extract(tmp_path)
    assert (counts(nothing), nothing["samples"], nothing["decoded"]) == ({"unchanged": 5}, 0, 0)
    assert nothing["warnings"] == []  # pictures are decoded as they were
    assert snapshots.newest(str(root)).contract == 2  # type: ignore[union-attr]
    assert sorted(pd.read_parquet(root)["sample_id"]) == [f"s{i}.png" for i in range(4)]
    assert extract(tmp_path)["snapshot"] == nothing["snapshot"]
    draw(tmp_path, "s1", 101)
    assert counts(extract(tmp_path)) == {"changed": 1, "unchanged": 4}
    assert shown(tmp_path) == {"s0": 0, "s1": 101, "s2": 2, "s3": 3}
    maintenance.rollback(str(tmp_path / "out"), 1)
    assert shown(tmp_path) == {f"s{i}": i for i in range(4)}


@pytest.mark.parametrize("base", [True, False])
def test_a_run_of_then_that_was_killed_is_continued(
    ray_session: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: bool
) -> None:
    from pipeline import config as configs
    from pipeline.dataset.commit.transaction import Transaction

    if base:
        draw(tmp_path, "first", 7)
        extract(tmp_path)
    for i in range(4):
        draw(tmp_path, f"s{i}", i)
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")

    class Dead(BaseException):
        pass

    def die(*args: Any) -> None:
        raise Dead

    with monkeypatch.context() as patched:
        patched.setattr(Transaction, "commit", die)
        with pytest.raises(Dead):
            extract(tmp_path)
    root = tmp_path / "out" / "v1"
    prepared = local_runs.prepare(config(tmp_path))
    downgrade(root, prepared)
    (announced,) = (root / "_running").iterdir()
    opened = json.loads(announced.read_text())
    work = {
        **checks.identities_of_contract_1(prepared),
        "forgotten": [],
        "allowed_roots": list(sources.build(prepared.config.source).allowed_roots().plain()),
    }
    announced.write_text(json.dumps({**opened, "identity": configs.digest(work)}))
    for record in (root / "_runs").glob("*/tasks/*.parquet"):
        table = pq.read_table(record)
        meta = {
            key: value.replace(b'"_failures/', b'"failures/') for key, value in (table.schema.metadata or {}).items()
        }
        pq.write_table(table.replace_schema_metadata(meta), record)
    shutil.rmtree(root / "_leases")

    report = extract(tmp_path)
    assert report["samples_by_class"]["rows_adopted"] == 5
    assert report["decoded"] == 0
    assert shown(tmp_path) == {**({"first": 7} if base else {}), **{f"s{i}": i for i in range(4)}}
    assert dataset.open(str(tmp_path / "out")).failures()["sample_id"].to_pylist() == ["bad.png"]
    newest = snapshots.newest(str(root))
    assert newest is not None
    assert newest.identities["features"]["p"].get("contract") == 1  # what it was begun with is what it is made with
    assert counts(extract(tmp_path)) == {"unchanged": 5 + base}


def test_a_dataset_of_an_older_revision_goes_on_with_a_warning(ray_session: Any, tmp_path: Path) -> None:
    from tests.decoders.reference import write_numbered

    frames = {
        "modality": "video",
        "tokenizer": {"kind": "frame", "size": 32, "sampling": {"kind": "uniform", "frames": 2}},
        "encoder": {"kind": "raw"},
        "emit": ["tokens"],
    }
    picture = {
        "modality": "image",
        "tokenizer": {"kind": "patch", "size": 16, "patch_size": 8},
        "encoder": {"kind": "raw"},
        "emit": ["tokens"],
    }
    more = {"features": {"p": picture, "f": frames}}
    draw(tmp_path, "s0", 5)
    write_numbered(tmp_path / "in" / "a.mp4", range(0, 800, 40))
    extract(tmp_path, **more)
    root = tmp_path / "out" / "v1"
    downgrade(root, local_runs.prepare(config(tmp_path, **more)))
    write_numbered(tmp_path / "in" / "b.mp4", range(0, 800, 40))
    preview = run.plan(local_runs.prepare(config(tmp_path, **more)))
    again = extract(tmp_path, **more)
    assert counts(again) == {"new": 1, "unchanged": 2}
    for warnings in (preview.warnings, again["warnings"], extract(tmp_path, **more)["warnings"]):
        assert len(warnings) == 1
        assert warnings[0].startswith("f_tokens, f_grid, f_times: rows that are there were made by revision 1 of")
        assert "--new-version" in warnings[0]
    newer = run.extract(local_runs.prepare(config(tmp_path, **more), new_version=True), show_progress=False)
    assert newer["warnings"] == []
    assert newer["decoded"] == 2, "the videos; the picture's column is copied"
    found = dataset.open(str(tmp_path / "out")).to_arrow(["sample_id", "p_tokens"]).to_pylist()
    assert [row["p_tokens"] is not None for row in sorted(found, key=lambda row: row["sample_id"])] == [
        False,
        False,
        True,
    ]


def test_only_rows_of_todays_windows_are_copied(ray_session: Any, tmp_path: Path, models: Path) -> None:
    """Where another revision of decoding made the rows, by their times; windows of a text have none, but numbers."""
    from tests.stages.media_fixtures import IMAGE, VIDEO, text, write_clip

    more = {
        "features": {"p": IMAGE, "f": VIDEO, "t": text(models / "bert", max_length=16, overflow="windows")},
        "window": {"length_s": 1, "repeat_tokens": True},
    }
    (tmp_path / "in").mkdir()
    draw(tmp_path, "a", 5)
    write_clip(tmp_path / "in" / "a.mp4", 2.0)
    (tmp_path / "in" / "long.txt").write_text(" ".join(f"word{i}" for i in range(30)))
    extract(tmp_path, **more)
    root = tmp_path / "out" / "v1"
    before = dataset.open(str(tmp_path / "out")).to_arrow()
    downgrade(root, local_runs.prepare(config(tmp_path, **more)))
    newest = snapshots.newest(str(root))
    assert newest is not None
    (shard,) = newest.shards
    table = pq.read_table(root / shard.path)
    rows = table.to_pylist()
    for row in rows:
        row["p_tokens"] = [[0.0] * len(one) for one in row["p_tokens"]] if row["p_tokens"] else None
        if row["window"] == 1 and row["end_s"] is not None:
            row["end_s"] += 0.05
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), root / shard.path)
    run.extract(local_runs.prepare(config(tmp_path, **more), new_version=True), show_progress=False)
    after = {
        (row["sample_id"], row["window"]): row for row in dataset.open(str(tmp_path / "out")).to_arrow().to_pylist()
    }
    first = {(row["sample_id"], row["window"]): row for row in before.to_pylist()}
    assert len([key for key in first if key[0] == "long.txt"]) > 2
    for key, row in first.items():
        assert [after[key][name] for name in ("t_token_ids", "end_s")] == [row["t_token_ids"], row["end_s"]]
    assert not np.any(after["a", 0]["p_tokens"]), "copied: the old rows hold zeros"
    assert after["a", 1]["p_tokens"] == first["a", 1]["p_tokens"], "computed: the old window ended elsewhere"


def test_an_older_tessera_refuses_todays(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maintenance.compact(str(out))
    monkeypatch.setattr(snapshots, "CONTRACT", 1)
    for call in (lambda: dataset.open(str(out)), lambda: night(out / "v1", RUNS[8], ["new"])):
        with pytest.raises(TesseraError, match="is of contract 2, this reader knows 1; update tessera"):
            call()
