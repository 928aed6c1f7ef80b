"""Somebody else's dataset: it may not write, move, delete or read outside itself, run code, hang, or take memory by a
number that it claims. Each is made from a good one; what it cannot do, it is told in one line."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from pipeline import dataset, inspection, snapshots, state, upkeep
from pipeline.errors import TesseraError
from pipeline.lease import Lease
from pipeline.stages.carry import CarryStage
from pipeline.state import Retry
from tests import bounded
from tests.dataset_fixtures import RUNS, ids, night, write
from tests.sinks.test_shards import FIELDS
from tests.test_local_files import deep

pytestmark = pytest.mark.timeout(120)
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of three nights, of which the last was compacted."""
    folder = tmp_path_factory.mktemp("made")
    root = folder / "v1"
    night(root, RUNS[1], ["a", "b", "c", "d"])
    night(root, RUNS[2], ["b", "e"], drops={f"data/{RUNS[1]}-000000-000.parquet": [1]})
    night(root, RUNS[3], ["x"], {0: "corrupt"}, drops={f"data/{RUNS[1]}-000000-000.parquet": [3]})
    upkeep.compact(str(folder))
    return folder


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    """A copy of it; and ``home``, which is not its business."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("key", "x", "data.parquet"):
        (home / name).write_text(f"precious {name}")
    return Path(shutil.copytree(made, tmp_path / "out"))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def line(error: BaseException) -> str:
    """The message, which is one line that a terminal can show."""
    text = str(error)
    assert text.isprintable(), text
    assert len(text) < 1200, text
    return text


def told(call: Callable[[], object], *words: str) -> None:
    with pytest.raises(TesseraError) as caught:
        call()
    assert all(word in line(caught.value) for word in words), caught.value


def _console() -> Console:
    return Console(file=io.StringIO())


def newest(out: Path) -> Path:
    return max((out / "v1" / "_snapshots").iterdir())


def change(path: Path, how: Change) -> None:
    values = json.loads(path.read_text())
    how(values)
    path.write_text(json.dumps(values))


def _extract(out: Path) -> None:
    night(out / "v1", RUNS[8], ["new"])


def _read(out: Path) -> None:
    found = dataset.open(str(out))
    found.to_arrow().to_pylist()
    found.failures().to_pylist()


DOES: dict[str, Callable[[Path], object]] = {
    "read": _read,
    "compact": lambda out: upkeep.compact(str(out)),
    "rollback": lambda out: upkeep.rollback(str(out), 1),
    "forget": lambda out: upkeep.forget(str(out), ["a"]),
    "vacuum": lambda out: upkeep.vacuum(str(out), 0),
    "extract": _extract,
}

# -- names ----------------------------------------------------------------------------------------

SHARD = f"data/{RUNS[1]}-000000-000.parquet"
NAMES: dict[str, Change] = {
    "path that leads out": lambda s: s["shards"][0].update(path="../../home/x"),
    "path that leads out from a folder": lambda s: s["shards"][0].update(path="data/../../../home/data.parquet"),
    "absolute path": lambda s: s["shards"][0].update(path="/etc/passwd"),
    "URL": lambda s: s["shards"][0].update(path="file:///etc/passwd"),
    "path of another folder": lambda s: s["shards"][0].update(path=f"_runs/{RUNS[1]}-0.parquet"),
    "path of another kind": lambda s: s["shards"][0].update(path=f"failures/{RUNS[1]}-0.parquet"),
    "path below the folder": lambda s: s["shards"][0].update(path=f"data/sub/{RUNS[1]}-0.parquet"),
    "path that no run writes": lambda s: s["shards"][0].update(path="data/x.parquet"),
    "path with control codes": lambda s: s["shards"][0].update(path=f"data/{RUNS[1]}-\x1b[2J.parquet"),
    "path that is no string": lambda s: s["shards"][0].update(path=["data"]),
    "path of a failure": lambda s: s["failures"][0].update(path="../../home/x"),
    "path of an empty window": lambda s: s["empty"].append({**s["shards"][0], "path": "../../home/x"}),
    "the same file twice": lambda s: s["shards"].append(s["shards"][0]),
    "pending that leads out": lambda s: s["shards"][0].update(pending="../../home/key"),
    "pending of another file": lambda s: s["shards"][0].update(pending=f"_runs/{RUNS[1]}/pending/{SHARD}x"),
    "pending of a run that leads out": lambda s: s["shards"][0].update(
        pending=f"_runs/../../../home/pending/{s['shards'][0]['path']}"
    ),
    "pending of the snapshots": lambda s: s["shards"][0].update(pending="_snapshots/00000001.json"),
    "retired that leads out": lambda s: s.update(retired=["../../home/x"]),
    "retired in a folder that is none": lambda s: s.update(retired=["home/x.parquet"]),
    "a run that leads out": lambda s: s.update(run_id="../../../home"),
    "forgotten that is no digest": lambda s: s.update(forgotten=["a"]),
}


@pytest.mark.parametrize("what", DOES)
@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_no_writer_makes_is_refused(out: Path, tmp_path: Path, name: str, what: str) -> None:
    change(newest(out), NAMES[name])
    before = tree(tmp_path / "home"), {k: v for k, v in tree(out).items() if "_leases" not in k}
    told(lambda: DOES[what](out), str(newest(out)), "restore the file")
    assert (tree(tmp_path / "home"), {k: v for k, v in tree(out).items() if "_leases" not in k}) == before


@pytest.mark.parametrize("name", NAMES)
def test_an_old_snapshot_is_no_way_out_either(out: Path, tmp_path: Path, name: str) -> None:
    first = out / "v1" / "_snapshots" / "00000003.json"
    change(first, NAMES[name])
    before = tree(tmp_path / "home")
    for call in (
        lambda: upkeep.rollback(str(out), 3),
        lambda: upkeep.vacuum(str(out), 0),
        lambda: dataset.open(str(out), snapshot=3).to_arrow(),
    ):
        told(call, str(first))
    assert tree(tmp_path / "home") == before
    assert ids(out) == ["a", "b", "c", "e"]


NUMBERS: dict[str, Change] = {
    "rows": lambda s: s["shards"][0].update(rows=-1),
    "rows that are a float": lambda s: s["shards"][0].update(rows=1e9),
    "rows that are true": lambda s: s["shards"][0].update(rows=True),
    "rows of hundreds of digits": lambda s: s["shards"][0].update(rows=10**300),
    "bytes": lambda s: s["shards"][0].update(bytes=-5),
    "digest": lambda s: s["shards"][0].update(sha256="x"),
    "deleted": lambda s: s["shards"][0].update(deleted=[-1]),
    "deleted twice": lambda s: s["shards"][0].update(deleted=[1, 1]),
    "deleted backwards": lambda s: s["shards"][0].update(deleted=[1, 0]),
    "deleted beyond": lambda s: s["shards"][0].update(deleted=[99]),
    "deleted that is a string": lambda s: s["shards"][0].update(deleted="0"),
    "contract": lambda s: s.update(contract="1"),
    "contract of none": lambda s: s.update(contract=0),
    "number": lambda s: s.update(snapshot=7),
    "kind": lambda s: s.update(kind="destroy"),
    "created": lambda s: s.update(created="yesterday"),
    "created without its offset": lambda s: s.update(created="2026-01-01T00:00:00"),
    "created with control codes": lambda s: s.update(created="2026-01-01\x1b00:00:00+00:00"),
    "created on no day": lambda s: s.update(created="2026-02-31T00:00:00+00:00"),
    "features": lambda s: s.update(features=[]),
    "a feature": lambda s: s.update(features={"features": {"f": 1}}),
    "shards": lambda s: s.update(shards={}),
    "a shard": lambda s: s.update(shards=[5]),
    "no shards": lambda s: s.pop("shards"),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_that_cannot_be_is_refused(out: Path, name: str) -> None:
    change(newest(out), NUMBERS[name])
    for what in DOES:
        told(lambda what=what: DOES[what](out), str(newest(out)))  # type: ignore[misc]


@pytest.mark.parametrize("rows", [10**9, 3])
def test_rows_are_those_of_the_file_before_room_is_made_for_them(out: Path, rows: int) -> None:
    change(newest(out), lambda s: s["shards"][0].update(rows=rows, deleted=[0]))
    code = """
import sys
from pipeline import dataset, upkeep
from pipeline.errors import TesseraError
for call in (
    lambda: dataset.open(sys.argv[1]).to_arrow(),
    lambda: list(dataset.open(sys.argv[1]).batches(["sample_id"])),
    lambda: list(dataset.open(sys.argv[1]).rows_between(0, 5, ["sample_id"], 4)),
    lambda: upkeep.compact(sys.argv[1]),
    lambda: upkeep.forget(sys.argv[1], ["a"]),
):
    try:
        call()
    except TesseraError as error:
        print(error)
"""
    done = bounded.run(code, out)
    assert done.peak_mb < 600
    assert [f"the snapshot says {rows} rows, the file 4" in one for one in done.out.splitlines()] == [True] * 5


def test_a_footer_that_claims_rows(out: Path) -> None:
    """The file agrees with its snapshot; its row groups do not."""
    from tests import thrift

    columns = [thrift.element("schema", children=1), thrift.element("sample_id", thrift.BYTE_ARRAY)]
    shard = json.loads(newest(out).read_text())["shards"][0]
    (out / "v1" / shard["path"]).write_bytes(thrift.file(columns, 10**9, []))
    change(newest(out), lambda s: s["shards"][0].update(rows=10**9, deleted=[0]))
    told(lambda: dataset.open(str(out)).to_arrow(), shard["path"], "1000000000 rows")


# -- JSON -----------------------------------------------------------------------------------------

BROKEN = {
    "nothing": b"",
    "half": b'{"contract": 1, "snaps',
    "no UTF-8": b'{"contract": "\xff\xfe"}',
    "deep": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "an array": b"[]",
    "a number": b"7",
    "null": b"null",
    "empty": b"{}",
    "infinite": b'{"contract": 1e400, "version": 1e400, "base": 1e400, "token": 1e400}',
    "digits": b'{"contract": ' + b"1" * 6000 + b"}",
    "twice": b'{"contract": 1, "contract": 1}',
}
FILES = {
    "snapshot": "v1/_snapshots/00000005.json",
    "lease": "v1/_leases/00000099.json",
    "run": f"v1/_running/{RUNS[7]}.json",
    "current": "_current.json",
}


def _uses(file: str) -> list[str]:
    return {
        "snapshot": [*DOES],
        "lease": ["compact", "rollback", "forget", "vacuum", "extract"],
        "run": ["compact", "rollback", "forget", "vacuum", "extract"],
        "current": ["read", "compact", "rollback", "vacuum"],
    }[file]


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("file", FILES)
def test_a_file_that_is_not_what_its_name_says_is_one_line(out: Path, file: str, kind: str) -> None:
    path = out / FILES[file]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(BROKEN[kind])
    if file == "current" and kind in ("empty",):
        return  # no version is named: the newest is
    for what in _uses(file):
        if (file, what) == ("current", "vacuum"):
            continue  # of all versions
        told(lambda what=what: DOES[what](out), str(path))  # type: ignore[misc]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("kind", ["pipe", "link", "dangling link", "folder"])
def test_a_file_that_is_none_is_one_line_and_no_hang(out: Path, tmp_path: Path, file: str, kind: str) -> None:
    path = out / FILES[file]
    path.parent.mkdir(exist_ok=True)
    secret = tmp_path / "home" / "secret.json"
    secret.write_text('{"a": 1}')
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(secret if kind == "link" else tmp_path / "nowhere")
    before = tree(tmp_path / "home")
    for what in _uses(file):
        if (file, what) == ("current", "vacuum") or kind == "folder":
            continue
        told(lambda what=what: DOES[what](out), str(path))  # type: ignore[misc]
    assert tree(tmp_path / "home") == before


def test_a_lease_says_what_it_likes_on_one_line(out: Path) -> None:
    lease = max((out / "v1" / "_leases").iterdir())
    values = json.loads(lease.read_text())
    odd = {"what": "\x1b[2Jextract\n\n" + "x" * 3000, "host": "\x07", "renewed": -(10**15), "released": False}
    lease.write_text(json.dumps({**values, **odd}))
    holder = Lease(str(out / "v1"), "b", ttl_s=0.5)._newest()[1]
    assert holder is not None
    assert line(TesseraError(str(holder))).startswith(r"\x1b[2Jextract xxx")


# -- links ----------------------------------------------------------------------------------------

LINKED = (
    "data",
    "failures",
    "_empty",
    "_snapshots",
    "_leases",
    "_running",
    "_runs",
    f"_runs/{RUNS[7]}",
    f"_runs/{RUNS[7]}/pending",
    f"_runs/{RUNS[7]}/tasks",
    "_superseded",
    "_superseded/data",
)


def _interrupted(out: Path) -> None:
    """A run that was killed: announced, with a task's record and a pending file."""
    root = out / "v1"
    write(root, RUNS[7], ["b"], replaces=True)
    (root / "_running").mkdir(exist_ok=True)
    (root / "_running" / f"{RUNS[7]}.json").write_text(json.dumps({"base": 4, "identity": "identity"}))
    (root / "_empty").mkdir(exist_ok=True)


@pytest.mark.parametrize("what", [*DOES, "leftovers"])
@pytest.mark.parametrize("folder", LINKED)
def test_a_folder_that_is_a_link_is_not_followed(out: Path, tmp_path: Path, folder: str, what: str) -> None:
    """It lies elsewhere with all that was in it, and what else is there is not touched."""
    _interrupted(out)
    place, away = out / "v1" / folder, tmp_path / "home" / "away"
    if what == "leftovers":
        shutil.rmtree(out / "v1" / "_running")
        if folder == "_running":
            (out / "v1" / "_running").mkdir()
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(place, away)
    (away / "tasks").mkdir(exist_ok=True)
    (away / "pending").mkdir(exist_ok=True)
    (away / "tasks" / "mine").write_text("precious")
    (away / "mine.parquet").write_text("precious")
    (away / f"{RUNS[6]}-000000-000.parquet").write_text("of no snapshot, and precious")
    place.symlink_to(away)
    before = tree(tmp_path / "home")
    with contextlib.suppress(TesseraError):
        DOES["vacuum" if what == "leftovers" else what](out)
    assert tree(tmp_path / "home") == before


@pytest.mark.parametrize("what", DOES)
def test_a_shard_that_is_a_link_is_not_read(out: Path, tmp_path: Path, what: str) -> None:
    shard = out / "v1" / json.loads(newest(out).read_text())["shards"][0]["path"]
    away = tmp_path / "home" / "private.parquet"
    night(out / "v1", RUNS[5], ["y"])  # two shards, to be compacted
    shutil.move(shard, away)
    shard.symlink_to(away)
    before = tree(tmp_path / "home")
    if what in ("vacuum", "extract"):  # they do not look into it
        DOES[what](out)
    else:
        told(lambda: DOES[what](out), str(shard), "is a symbolic link")
    assert tree(tmp_path / "home") == before


@pytest.mark.parametrize("what", DOES)
def test_a_shard_that_is_a_pipe_is_one_line(out: Path, what: str) -> None:
    shard = out / "v1" / json.loads(newest(out).read_text())["shards"][0]["path"]
    shard.unlink()
    os.mkfifo(shard)
    night(out / "v1", RUNS[5], ["y"])  # two shards, to be compacted
    if what in ("vacuum", "extract"):
        DOES[what](out)
    else:
        told(lambda: DOES[what](out), str(shard), "is not a regular file")
    if what == "rollback":
        return
    (found,) = list(snapshots.numbers(str(out / "v1")))[-1:]
    base = snapshots.read(str(out / "v1"), found)
    told(lambda: list(state.of_snapshot(str(out / "v1"), base, Retry())), str(shard), "is not a regular file")


def test_a_version_that_is_a_link_is_none(out: Path, tmp_path: Path) -> None:
    other = tmp_path / "home" / "other"
    shutil.move(out / "v1", other)
    (out / "v1").symlink_to(other)
    before = tree(other)
    for what in ("compact", "rollback", "forget", "read"):
        told(lambda what=what: DOES[what](out), "holds no dataset but 'v1', a symbolic link")  # type: ignore[misc]
    assert upkeep.vacuum(str(out), 0) == []
    told(lambda: upkeep.vacuum(str(out), 0, "v1"), f"{out}/v1' is a symbolic link")
    told(lambda: dataset.open(str(out), "v1"), f"{out}/v1' is a symbolic link")
    assert tree(other) == before
    assert ids(other) == ids(out / "v1") == ["a", "b", "c", "e"], "who names the link means it"


def test_the_folder_that_the_user_names_may_be_a_link(out: Path, tmp_path: Path) -> None:
    alias = tmp_path / "alias"
    alias.symlink_to(out)
    _extract(alias)
    assert ids(alias) == ["a", "b", "c", "e", "new"]
    upkeep.compact(str(alias))
    upkeep.vacuum(str(alias), 0)
    assert ids(alias) == ids(out) == ["a", "b", "c", "e", "new"]


# -- records and runs -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (b"no json", "is not JSON"),
        (b"[" * 100_000, "is nested too deep"),
        (b"[]", "is an array"),
        (b"{}", "has no 'shards'"),
        ({"path": "../../../home/x"}, "shards[0].path"),
        ({"path": f"failures/{RUNS[7]}-0.parquet"}, "shards[0].path"),
        ({"pending": "../../home/key"}, "shards[0].pending"),
        ({"pending": f"_runs/{RUNS[1]}/pending/data/{RUNS[7]}-000000-000-r.parquet"}, "shards[0].pending"),
        ({"rows": 10**30}, "shards[0].rows"),
        (None, "is not JSON"),
    ],
)
def test_a_record_names_only_what_its_run_wrote(out: Path, tmp_path: Path, record: Any, why: str) -> None:
    _interrupted(out)
    (path,) = (out / "v1" / "_runs" / RUNS[7] / "tasks").iterdir()
    table = pq.read_table(path)
    if isinstance(record, dict):
        named = json.loads(table.schema.metadata[state.RECORD])
        named["shards"][0].update(record)
        record = json.dumps(named).encode()
    pq.write_table(table.replace_schema_metadata(None if record is None else {state.RECORD: record}), path)
    before = tree(tmp_path / "home")
    told(lambda: _extract(out), str(path), why)
    assert tree(tmp_path / "home") == before


@pytest.mark.parametrize("content", [b"", b"PAR1", b"\0" * 100])
def test_a_record_that_is_no_parquet(out: Path, content: bytes) -> None:
    _interrupted(out)
    (path,) = (out / "v1" / "_runs" / RUNS[7] / "tasks").iterdir()
    path.write_bytes(content)
    told(lambda: _extract(out), str(path), "cannot read")


def test_a_run_that_is_none_names_no_folder(out: Path, tmp_path: Path) -> None:
    """``...json`` is the file of a run called ``..``."""
    (out / "v1" / "_running").mkdir(exist_ok=True)
    for name in ("...json", "x.json", ".json", f"{RUNS[7]}x.json"):
        (out / "v1" / "_running" / name).write_text(json.dumps({"base": 4, "identity": "identity"}))
    (out / "v1" / "pending").mkdir()
    (out / "v1" / "pending" / "mine").write_text("precious")
    upkeep.rollback(str(out), 1)
    upkeep.vacuum(str(out), 0)
    _extract(out)
    assert (out / "v1" / "pending" / "mine").read_text() == "precious"


def test_files_that_only_look_like_snapshots_do_not_count(out: Path) -> None:
    folder = out / "v1" / "_snapshots"
    for name in ("9.json", "000000009.json", "٠٠٠٠٠٠٠٩.json", "99999999999999999999.json", "x.json"):
        (folder / name).write_text("{")
    assert sorted(snapshots.numbers(str(out / "v1"))) == [1, 2, 3, 4]
    (folder / "999999999999999.json").write_text(newest(out).read_text())
    told(lambda: dataset.open(str(out)), "999999999999999.json")


# -- extension types ------------------------------------------------------------------------------

RAN = """
import os, sys, threading
import pyarrow as pa
import ray.data
from ray.data._internal.object_extensions.arrow import ArrowPythonObjectArray

class Evil:
    def __reduce__(self):
        return (os.mkdir, (sys.argv[2],))
"""


WHERE = ("top", "list", "struct", "map")
POISONS = """
import pathlib
import pyarrow.parquet as pq

def column(where, count):
    ext = ArrowPythonObjectArray.from_objects([Evil() for _ in range(count)])
    offsets = list(range(count + 1))
    return {
        "top": ext,
        "list": pa.ListArray.from_arrays(offsets, ext),
        "struct": pa.StructArray.from_arrays([ext], names=["in"]),
        "map": pa.MapArray.from_arrays(offsets, pa.array(["k"] * count), ext),
    }[where]

for where, out in zip(sys.argv[3::2], sys.argv[4::2]):
    for path in pathlib.Path(out).rglob("*.parquet"):
        table = pq.read_table(path)
        table = table.append_column("evil", column(where, len(table)))
        if "stage" in table.column_names:
            at = table.column_names.index("message")
            table = table.set_column(at, "message", column(where, len(table)))
        pq.write_table(table, path)
"""


def _poisoned(flag: Path, *datasets: str | Path) -> None:
    """Another column in every file of datasets, of a type that Ray registers, whose values run code.

    ``datasets``: where in the column, and a dataset, in turn.
    """
    bounded.run(RAN + POISONS, "", flag, *datasets)
    assert not flag.exists()


READS = """
from pipeline import dataset, inspection, reading, snapshots, state, upkeep
from pipeline.errors import TesseraError
from rich.console import Console

def tried(call):
    try:
        print("DONE", call())
    except TesseraError as error:
        print("TOLD", str(error)[:100])

for out in sys.argv[3:]:
    found = dataset.open(out)
    root, base = f"{out}/v1", snapshots.newest(f"{out}/v1")
    tried(lambda: [type(row["evil"]).__name__ for row in found.to_arrow().to_pylist()][:1])
    tried(lambda: len([row for batch in found.batches() for row in batch.to_pylist()]))
    tried(lambda: len(list(found.to_torch())))
    tried(lambda: len(list(found.to_torch(batch_size=2))))
    tried(lambda: found.failures().to_pylist())
    tried(lambda: len(found.schema))
    tried(lambda: found.lineage and None)
    tried(lambda: inspection.show(out, 5, Console(file=open(os.devnull, "w"))))
    tried(lambda: [table.num_rows for table in state.of_snapshot(root, base, state.Retry())])
    tried(lambda: list(state.to_carry(root, base)) and None)
    tried(lambda: upkeep.forget(out, ["a"])[0].removed)
    tried(lambda: upkeep.compact(out, shard_bytes=1 << 30).rewritten)
    tried(lambda: upkeep.rollback(out, 3) and None)
    tried(lambda: sorted(row["sample_id"] for row in dataset.open(out).to_arrow().to_pylist()))
    assert not os.path.exists(sys.argv[2]), "code of the dataset ran"
    print("END")
"""


def test_pickled_columns_run_nothing(out: Path, tmp_path: Path) -> None:
    flag = tmp_path / "ran"
    copies = [shutil.copytree(out, tmp_path / where / "out") for where in WHERE]
    _poisoned(flag, *(one for pair in zip(WHERE, copies, strict=True) for one in pair))
    done = bounded.run(RAN + READS, "", flag, *copies)
    assert not flag.exists()
    told = done.out.split("END")[:-1]
    assert len(told) == len(WHERE)
    assert all("DONE" in one for one in told)
    assert "DONE ['bytes']" in told[0], "values as they are stored"


@pytest.mark.parametrize("where", ["top", "list"])
def test_pickled_columns_run_nothing_in_ray(out: Path, tmp_path: Path, ray_session: Any, where: str) -> None:
    flag = tmp_path / "ran"
    _poisoned(flag, where, out)
    rows = dataset.open(str(out)).to_ray().take()
    assert not flag.exists()
    assert sorted(row["sample_id"] for row in rows) == ["a", "b", "c", "e"]
    (value,) = {type(row["evil"][0] if where == "list" else row["evil"]) for row in rows}
    assert value is bytes


def test_reused_columns_run_nothing(out: Path, tmp_path: Path) -> None:
    """The column that a new version takes over is itself one of Ray's."""
    flag = tmp_path / "ran"
    _poisoned(flag, "top", out)
    base = snapshots.newest(str(out / "v1"))
    assert base is not None

    class Feature:
        name = "f"

        def fields(self) -> list[pa.Field]:
            return [pa.field("evil", pa.large_binary())]

    table = pa.table(
        {
            "carry_file": pa.array([0], pa.int32()),
            "carry_position": pa.array([0], pa.int64()),
            "cells": pa.array([0], pa.int32()),
            "evil": pa.array([None], pa.large_binary()),
        }
    )
    features: Any = (Feature(),)
    import ray.data  # noqa: F401  # registers the type

    done = CarryStage(str(out / "v1"), base.shards, features)(table)
    assert isinstance(done["evil"].to_pylist()[0], bytes)
    assert not flag.exists()


# -- footers and columns --------------------------------------------------------------------------


def _rewrite(out: Path, how: Callable[[pa.Table], pa.Table]) -> Path:
    """Change the newest shard."""
    path = out / "v1" / json.loads(newest(out).read_text())["shards"][-1]["path"]
    table = how(pq.read_table(path))
    pq.write_table(table, path)
    change(newest(out), lambda s: s["shards"][-1].update(rows=len(table)))
    return path


def _footer(out: Path, text: str | bytes) -> Path:
    data = text if isinstance(text, bytes) else text.encode()
    return _rewrite(out, lambda table: table.replace_schema_metadata({b"tessera": data}))


FEATURE = {"modality": "image", "emit": ["embedding", "tokens"], "model": "m", "dim": 3, "token_dim": 4}


@pytest.mark.parametrize(
    ("footer", "why"),
    [
        ("{", "is not JSON"),
        (b"\xff", "is not JSON"),
        ("[" * 100_000, "is nested too deep"),
        ("[]", "is an array"),
        ('{"features": []}', "features is an array"),
        ('{"features": {"f": 3}}', "features.f is 3"),
        (json.dumps({"features": {"f": {**FEATURE, "dim": 1e10}}}), "features.f.dim is 10000000000.0"),
        (json.dumps({"features": {"f": {**FEATURE, "dim": 10**10}}}), "features.f.dim is 10000000000"),
        (json.dumps({"features": {"f": {**FEATURE, "dim": 0}}}), "features.f.dim is 0"),
        (json.dumps({"features": {"f": {**FEATURE, "dim": True}}}), "features.f.dim is True"),
        (json.dumps({"features": {"f": {**FEATURE, "token_dim": "4"}}}), "features.f.token_dim is '4'"),
        (json.dumps({"features": {"f": {**FEATURE, "token_dim": 5}}}), "column 'f_tokens' of list"),
        (json.dumps({"features": {"f": {**FEATURE, "emit": "embedding"}}}), "features.f.emit is 'embedding'"),
        (json.dumps({"features": {"f": {**FEATURE, "model": ["m"]}}}), "features.f.model is an array"),
        (json.dumps({"features": {"f": {**FEATURE, "normalized": "yes"}}}), "features.f.normalized is 'yes'"),
        (json.dumps({"features": {"f": {**FEATURE, "processor": json.loads("[" * 90 + "]" * 90)}}}), "nested too deep"),
    ],
)
def test_a_footer_that_no_writer_makes(out: Path, footer: str | bytes, why: str) -> None:
    path = _footer(out, footer)
    found = dataset.open(str(out))
    told(lambda: found.to_torch(), path.name, why)
    told(lambda: found.collate, path.name, why)
    told(lambda: inspection.show(str(out), 1, _console()), why)
    if "is not JSON" in why:
        night(out / "v1", RUNS[5], ["y"])  # two shards, to be compacted
        told(lambda: upkeep.compact(str(out), shard_bytes=1 << 30), path.name, why)


@pytest.mark.parametrize("dim", [10**6, 20_000])
def test_a_width_is_believed_once_a_vector_has_it(out: Path, dim: int) -> None:
    _footer(out, json.dumps({"features": {"f": {**FEATURE, "dim": dim}}}))
    told(lambda: dataset.open(str(out)).collate, f"says {dim} values in 'f_embedding', no row has them")


def test_a_wide_vector_that_is_there_is_good(out: Path) -> None:
    def wide(table: pa.Table) -> pa.Table:
        vectors = pa.array([np.arange(20_000, dtype=np.float32)] * len(table), pa.list_(pa.float32()))
        table = table.set_column(table.column_names.index("f_embedding"), FIELDS[0], vectors)
        return table.replace_schema_metadata(
            {b"tessera": json.dumps({"features": {"f": {**FEATURE, "dim": 20_000}}}).encode()}
        )

    _rewrite(out, wide)
    (batch,) = dataset.open(str(out)).to_torch(["f_embedding"], batch_size=10)
    assert batch["f_embedding"].shape == (4, 20_000)


def test_a_window_that_begins_and_does_not_end(out: Path) -> None:
    _rewrite(
        out,
        lambda table: _set("end_s", lambda n: pa.nulls(n, pa.float64()))(
            _set("start_s", lambda n: pa.array([1.0] * n))(table)
        ),
    )
    assert len(dataset.open(str(out)).to_arrow()) == 4
    told(lambda: inspection.show(str(out), 3, _console()), "a row cannot be shown", "give --rows 0")
    inspection.show(str(out), 0, _console())


def test_vectors_of_another_length_than_the_footer_says(out: Path) -> None:
    _footer(out, json.dumps({"features": {"f": {**FEATURE, "dim": 7}}}))
    told(lambda: list(dataset.open(str(out)).to_torch(batch_size=2)), "'f_embedding' holds 3 values where 7 belong")


def _set(name: str, values: Callable[[int], pa.Array]) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.set_column(table.column_names.index(name), name, values(len(table)))


COLUMNS: dict[str, Callable[[pa.Table], pa.Table]] = {
    "an id that is a number": _set("sample_id", lambda n: pa.array(range(n))),
    "a window that is a string": _set("window", lambda n: pa.array(["0"] * n)),
    "a start that is a list": _set("start_s", lambda n: pa.array([[1.0]] * n)),
    "an embedding of strings": _set("f_embedding", lambda n: pa.array([["a"]] * n)),
    "an embedding that is a number": _set("f_embedding", lambda n: pa.array([1.0] * n)),
    "tokens of no width": _set("f_tokens", lambda n: pa.array([[[1.0]]] * n)),
    "a grid of floats": _set("f_grid", lambda n: pa.array([[1.0]] * n)),
    "no id": lambda table: table.drop_columns("sample_id"),
    "no window": lambda table: table.drop_columns("window"),
    "an id twice": lambda table: table.append_column("sample_id", table["sample_id"]),
}


@pytest.mark.parametrize("what", ["read", "torch", "compact", "state", "show"])
@pytest.mark.parametrize("kind", COLUMNS)
def test_columns_that_no_writer_makes(out: Path, kind: str, what: str) -> None:
    night(out / "v1", RUNS[5], ["y"])  # a good shard before the one that is changed
    _rewrite(
        out,
        lambda table: COLUMNS[kind](
            table.replace_schema_metadata({b"tessera": json.dumps({"features": {"f": FEATURE}}).encode()})
        ),
    )
    base = snapshots.newest(str(out / "v1"))
    assert base is not None
    calls: dict[str, Callable[[], object]] = {
        "read": lambda: dataset.open(str(out)).to_arrow(),
        "torch": lambda: list(dataset.open(str(out)).to_torch()),
        "compact": lambda: upkeep.compact(str(out), shard_bytes=1 << 30),
        "state": lambda: list(state.of_snapshot(str(out / "v1"), base, Retry())),
        "show": lambda: inspection.show(str(out), 3, _console()),
    }
    good = [("compact", "an embedding of strings"), ("compact", "tokens of no width"), ("compact", "a grid of floats")]
    keys = ("no id", "no window", "an id twice", "a window that is a string")
    good += [("state", one) for one in COLUMNS if one not in keys]
    if (what, kind) in good:
        calls[what]()  # columns that are only copied, or that are not read
    else:
        told(calls[what], ".parquet")


def test_a_null_in_a_vector(out: Path) -> None:
    _rewrite(out, _set("f_embedding", lambda n: pa.array([[1.0, None, 2.0]] * n, pa.list_(pa.float32()))))
    told(lambda: list(dataset.open(str(out)).to_torch(["f_embedding"])), "column 'f_embedding' cannot be read")
    inspection.show(str(out), 3, Console(file=io.StringIO()))


def test_a_shard_that_lacks_a_column_of_the_others(out: Path) -> None:
    night(out / "v1", RUNS[5], ["y"])
    first = out / "v1" / json.loads(newest(out).read_text())["shards"][0]["path"]
    pq.write_table(pq.read_table(first).drop_columns("f_embedding"), first)
    found = dataset.open(str(out))
    told(lambda: list(found.to_torch()), first.name, "0 columns 'f_embedding'")
    told(lambda: CarryStage(str(out / "v1"), found.shards, ())._rows(0, np.array([0]), ["f_embedding"]), first.name)


def test_ids_that_are_null(out: Path) -> None:
    path = _rewrite(out, _set("sample_id", lambda n: pa.nulls(n, pa.string())))
    base = snapshots.newest(str(out / "v1"))
    assert base is not None
    told(lambda: list(state.of_snapshot(str(out / "v1"), base, Retry())), path.name, "a null in one of sample_id")


@pytest.mark.parametrize("attempts", [-1, -(2**31), 2**31 - 1, None])
def test_attempts_that_nobody_made(out: Path, attempts: int | None) -> None:
    """With a negative number a failure would be tried again for ever."""
    failure = out / "v1" / json.loads(newest(out).read_text())["failures"][0]["path"]
    table = pq.read_table(failure)
    at = table.column_names.index("attempts")
    pq.write_table(table.set_column(at, "attempts", pa.array([attempts] * len(table), pa.int32())), failure)
    base = snapshots.newest(str(out / "v1"))
    assert base is not None
    told(
        lambda: list(state.of_snapshot(str(out / "v1"), base, Retry())),
        failure.name,
        "a number of attempts that no run writes",
    )


def test_nulls_where_none_may_be(out: Path) -> None:
    failure = out / "v1" / json.loads(newest(out).read_text())["failures"][0]["path"]
    table = pq.read_table(failure)
    at = table.column_names.index("source_version")
    nullable = table.schema.field(at).with_nullable(True)
    pq.write_table(table.set_column(at, nullable, pa.nulls(len(table), pa.string())), failure)
    night(out / "v1", RUNS[5], ["z"], {0: "corrupt"})  # two files, to be compacted
    told(lambda: upkeep.compact(str(out)), failure.name)


@pytest.mark.parametrize("what", ["read", "compact", "state", "show"])
def test_a_name_that_is_not_utf_8(out: Path, what: str) -> None:
    night(out / "v1", RUNS[5], ["y"])  # two files, to be compacted
    path = out / "v1" / json.loads(newest(out).read_text())["shards"][-1]["path"]
    path.write_bytes(path.read_bytes().replace(b"source_version", b"source_versi\xffn"))
    base = snapshots.newest(str(out / "v1"))
    assert base is not None
    calls: dict[str, Callable[[], object]] = {
        "read": lambda: dataset.open(str(out)).to_arrow(),
        "compact": lambda: upkeep.compact(str(out)),
        "state": lambda: list(state.of_snapshot(str(out / "v1"), base, Retry())),
        "show": lambda: inspection.show(str(out), 3, _console()),
    }
    told(calls[what], path.name, "'utf-8' codec can't decode")


@pytest.mark.parametrize("what", ["read", "batches", "torch", "compact", "state", "show", "failures"])
def test_a_few_bytes_that_claim_gigabytes(out: Path, what: str) -> None:
    """A dictionary of one long value, which many rows have."""
    night(out / "v1", RUNS[5], ["y"], {})
    snapshot = newest(out)
    values = json.loads(snapshot.read_text())
    part = "failures" if what == "failures" else "shards"
    one = values[part][-1]
    path = out / "v1" / one["path"]
    table, rows = pq.read_table(path).slice(0, 1), 100_000
    table = table.take(pa.array(np.zeros(rows, np.int32)))
    long = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array(["x" * (1 << 20)]))
    at = table.column_names.index("source_version")
    table = table.set_column(at, "source_version", long).replace_schema_metadata(table.schema.metadata)
    pq.write_table(table, path, compression="zstd", store_schema=False)
    one.update(rows=rows, bytes=path.stat().st_size)
    snapshot.write_text(json.dumps(values))
    base = snapshots.newest(str(out / "v1"))
    assert base is not None
    calls: dict[str, Callable[[], object]] = {
        "read": lambda: dataset.open(str(out)).to_arrow(),
        "batches": lambda: list(dataset.open(str(out)).batches(["source_version"])),
        "torch": lambda: list(dataset.open(str(out)).to_torch(["source_version"])),
        "compact": lambda: upkeep.compact(str(out)),
        "state": lambda: list(state.of_snapshot(str(out / "v1"), base, Retry())),
        "show": lambda: inspection.show(str(out), 3, _console()),
        "failures": lambda: dataset.open(str(out)).failures(),
    }
    before = pa.total_allocated_bytes()
    if what == "show":
        calls[what]()  # it does not read this column
    else:
        told(calls[what], path.name, "column 'source_version' of row group 1 claims ")
    assert pa.total_allocated_bytes() - before < 100 << 20


def test_a_deep_tree_in_what_a_run_left_is_vacuumed(out: Path) -> None:
    left = out / "v1" / "_runs" / "20260101T000000-abcd"
    (left / "tasks").mkdir(parents=True)
    (left / "pending").mkdir()
    deep(left / "tasks", 3000)
    deep(left / "pending", 3000)
    upkeep.vacuum(str(out), older_than_s=0)
    assert not (left / "tasks").exists()
    assert not (left / "pending").exists()


# -- the command ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [["inspect"], ["snapshots"], ["versions"], ["compact"], ["vacuum"], ["rollback", "--to", "1"]]
)
@pytest.mark.parametrize("attack", ["pipe", "deep", "path", "link"])
def test_the_command_ends_with_one_line(
    out: Path, tmp_path: Path, called: Any, command: list[str], attack: str
) -> None:
    path = newest(out)
    if attack == "path":
        change(path, NAMES["path that leads out"])
    elif attack == "deep":
        path.write_bytes(BROKEN["deep"])
    else:
        path.unlink()
        os.mkfifo(path) if attack == "pipe" else path.symlink_to(tmp_path / "home" / "key")
    done = called(command[0], str(out), *command[1:])
    assert done.returncode in (2, 4), done
    (message,) = done.stderr.splitlines()
    assert message.startswith("tessera: ")
    assert str(path) in message


# -- what is no folder, and no file ---------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "link", "a run that is a link"])
def test_one_broken_version_keeps_no_other_from_forgetting(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    night(out / "v1", RUNS[1], ["a", "b"])
    night(out / "v2", RUNS[2], ["a", "c"])
    (out / "v1" / "_running").mkdir(exist_ok=True)
    (out / "v1" / "_running" / f"{RUNS[5]}.json").write_text('{"base": 1, "identity": "x"}')
    tasks = out / "v1" / "_runs" / RUNS[5] / "tasks"
    odd = tasks.parent if kind == "a run that is a link" else tasks
    odd.parent.mkdir(parents=True, exist_ok=True)
    odd.write_text("") if kind == "file" else odd.symlink_to(tmp_path)
    upkeep.forget(str(out), ["a"])
    assert (ids(out, version="v1"), ids(out, version="v2")) == (["b"], ["c"])
    begun = out / "a0" / "_running" / f"{RUNS[6]}.json"
    begun.parent.mkdir(parents=True)
    begun.write_text("{")
    shutil.rmtree(out / "v1" / "_snapshots")
    (out / "v1" / "_snapshots").symlink_to(tmp_path)
    told(lambda: upkeep.forget(str(out), ["c"]), "forgotten in v2, not yet in v1, a0 (v1: ", "is a symbolic link")
    assert ids(out, version="v2") == []


@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_what_is_no_file_goes_with_the_vacuum(out: Path, kind: str) -> None:
    upkeep.compact(str(out))
    odd = out / "v1" / "_superseded" / "data" / "0"
    os.mkfifo(odd) if kind == "pipe" else odd.symlink_to("/etc/hostname")
    upkeep.vacuum(str(out), 0)
    assert os.listdir(odd.parent) == []
    assert Path("/etc/hostname").exists()


@pytest.mark.parametrize("name", ["_running", "_leases", "_superseded"])
@pytest.mark.parametrize("what", ["compact", "vacuum", "forget", "rollback", "extract"])
def test_a_file_where_a_folder_belongs(out: Path, name: str, what: str) -> None:
    shutil.rmtree(out / "v1" / name, ignore_errors=True)
    (out / "v1" / name).write_text("")
    message = ""
    try:
        DOES[what](out)
    except TesseraError as error:
        message = str(error)
    assert not message or name in message
    assert "\n" not in message
    assert {"a", "b", "c", "e"} - {"a"} <= set(ids(out))


def test_a_column_that_cannot_be_filtered(out: Path) -> None:
    _rewrite(out, lambda table: table.append_column("odd", pa.array(["x"] * len(table), pa.string_view())))
    told(lambda: upkeep.forget(str(out), ["a"]), ".parquet", "cannot be read")
