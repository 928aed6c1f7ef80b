"""Names, numbers and JSON of snapshots, leases, records and runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline import dataset
from pipeline.core.errors import TesseraError
from pipeline.dataset import maintenance
from pipeline.dataset.commit import snapshots
from pipeline.dataset.commit.lease import Lease
from pipeline.dataset.diff import index
from tests.hostile_dataset.helpers import (
    DOES,
    Change,
    assert_reported,
    change,
    extract,
    interrupt,
    line,
    newest,
    tree,
)
from tests.support import bounded
from tests.support.dataset_fixtures import RUNS, ids

pytestmark = pytest.mark.timeout(120)


SHARD = f"data/{RUNS[1]}-000000-000.parquet"
NAMES: dict[str, Change] = {
    "path that leads out": lambda s: s["shards"][0].update(path="../../home/x"),
    "path that leads out from a folder": lambda s: s["shards"][0].update(path="data/../../../home/data.parquet"),
    "absolute path": lambda s: s["shards"][0].update(path="/etc/passwd"),
    "URL": lambda s: s["shards"][0].update(path="file:///etc/passwd"),
    "path of another folder": lambda s: s["shards"][0].update(path=f"_runs/{RUNS[1]}-0.parquet"),
    "path of another kind": lambda s: s["shards"][0].update(path=f"_failures/{RUNS[1]}-0.parquet"),
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
    assert_reported(lambda: DOES[what](out), str(newest(out)), "restore the file")
    assert (tree(tmp_path / "home"), {k: v for k, v in tree(out).items() if "_leases" not in k}) == before


@pytest.mark.parametrize("name", NAMES)
def test_an_old_snapshot_is_no_way_out_either(out: Path, tmp_path: Path, name: str) -> None:
    first = out / "v1" / "_snapshots" / "00000003.json"
    change(first, NAMES[name])
    before = tree(tmp_path / "home")
    for call in (
        lambda: maintenance.rollback(str(out), 3),
        lambda: maintenance.vacuum(str(out), 0),
        lambda: dataset.open(str(out), snapshot=3).to_arrow(),
    ):
        assert_reported(call, str(first))
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
        assert_reported(lambda what=what: DOES[what](out), str(newest(out)))  # type: ignore[misc]


@pytest.mark.parametrize("rows", [10**9, 3])
def test_rows_are_those_of_the_file_before_room_is_made_for_them(out: Path, rows: int) -> None:
    change(newest(out), lambda s: s["shards"][0].update(rows=rows, deleted=[0]))
    done = bounded.run("tests.hostile_dataset.programs.print_errors_of_readers", out)
    assert done.peak_mb < 600
    assert [f"the snapshot says {rows} rows, the file 4" in one for one in done.out.splitlines()] == [True] * 5


def test_a_footer_that_claims_rows(out: Path) -> None:
    """The file agrees with its snapshot; its row groups do not."""
    from tests.support import thrift

    columns = [thrift.element("schema", children=1), thrift.element("sample_id", thrift.BYTE_ARRAY)]
    shard = json.loads(newest(out).read_text())["shards"][0]
    (out / "v1" / shard["path"]).write_bytes(thrift.file(columns, 10**9, []))
    change(newest(out), lambda s: s["shards"][0].update(rows=10**9, deleted=[0]))
    assert_reported(lambda: dataset.open(str(out)).to_arrow(), shard["path"], "1000000000 rows")


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
        assert_reported(lambda what=what: DOES[what](out), str(path))  # type: ignore[misc]


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
        assert_reported(lambda what=what: DOES[what](out), str(path))  # type: ignore[misc]
    assert tree(tmp_path / "home") == before


def test_a_lease_says_what_it_likes_on_one_line(out: Path) -> None:
    lease = max((out / "v1" / "_leases").iterdir())
    values = json.loads(lease.read_text())
    odd = {"what": "\x1b[2Jextract\n\n" + "x" * 3000, "host": "\x07", "renewed": -(10**15), "released": False}
    lease.write_text(json.dumps({**values, **odd}))
    holder = Lease(str(out / "v1"), "b", ttl_s=0.5)._newest()[1]
    assert holder is not None
    assert line(TesseraError(str(holder))).startswith(r"\x1b[2Jextract xxx")


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (b"no json", "is not JSON"),
        (b"[" * 100_000, "is nested too deep"),
        (b"[]", "is an array"),
        (b"{}", "has no 'shards'"),
        ({"path": "../../../home/x"}, "shards[0].path"),
        ({"path": f"_failures/{RUNS[7]}-0.parquet"}, "shards[0].path"),
        ({"pending": "../../home/key"}, "shards[0].pending"),
        ({"pending": f"_runs/{RUNS[1]}/pending/data/{RUNS[7]}-000000-000-r.parquet"}, "shards[0].pending"),
        ({"rows": 10**30}, "shards[0].rows"),
        (None, "is not JSON"),
    ],
)
def test_a_record_names_only_what_its_run_wrote(out: Path, tmp_path: Path, record: Any, why: str) -> None:
    interrupt(out)
    (path,) = (out / "v1" / "_runs" / RUNS[7] / "tasks").iterdir()
    table = pq.read_table(path)
    if isinstance(record, dict):
        named = json.loads(table.schema.metadata[index.RECORD])
        named["shards"][0].update(record)
        record = json.dumps(named).encode()
    pq.write_table(table.replace_schema_metadata(None if record is None else {index.RECORD: record}), path)
    before = tree(tmp_path / "home")
    assert_reported(lambda: extract(out), str(path), why)
    assert tree(tmp_path / "home") == before


@pytest.mark.parametrize("content", [b"", b"PAR1", b"\0" * 100])
def test_a_record_that_is_no_parquet(out: Path, content: bytes) -> None:
    interrupt(out)
    (path,) = (out / "v1" / "_runs" / RUNS[7] / "tasks").iterdir()
    path.write_bytes(content)
    assert_reported(lambda: extract(out), str(path), "cannot read")


def test_a_run_that_is_none_names_no_folder(out: Path, tmp_path: Path) -> None:
    """``...json`` is the file of a run called ``..``."""
    (out / "v1" / "_running").mkdir(exist_ok=True)
    for name in ("...json", "x.json", ".json", f"{RUNS[7]}x.json"):
        (out / "v1" / "_running" / name).write_text(json.dumps({"base": 4, "identity": "identity"}))
    (out / "v1" / "pending").mkdir()
    (out / "v1" / "pending" / "mine").write_text("precious")
    maintenance.rollback(str(out), 1)
    maintenance.vacuum(str(out), 0)
    extract(out)
    assert (out / "v1" / "pending" / "mine").read_text() == "precious"


def test_files_that_only_look_like_snapshots_do_not_count(out: Path) -> None:
    folder = out / "v1" / "_snapshots"
    for name in ("9.json", "000000009.json", "٠٠٠٠٠٠٠٩.json", "99999999999999999999.json", "x.json"):
        (folder / name).write_text("{")
    assert sorted(snapshots.numbers(str(out / "v1"))) == [1, 2, 3, 4]
    (folder / "999999999999999.json").write_text(newest(out).read_text())
    assert_reported(lambda: dataset.open(str(out)), "999999999999999.json")


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
