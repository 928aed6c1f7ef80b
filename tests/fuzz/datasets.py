"""Datasets: every JSON file of one, links and pipes in it; and its Parquet files. All that reads one, and keeps it."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from pipeline import dataset
from pipeline.dataset import describe, describe_versions, maintenance
from pipeline.dataset.commit import snapshots
from pipeline.dataset.diff import index
from tests.fuzz import mutation
from tests.fuzz.cases import Case
from tests.fuzz.manifests import EXTENSIONS, _extension
from tests.fuzz.mutation import OUTSIDE
from tests.support.dataset_fixtures import RUNS, night, write


def _shown(call: Callable[..., None], *args: Any) -> str:
    out = io.StringIO()
    call(*args, Console(file=out, width=200))
    return out.getvalue()


def _whole(out: str) -> Any:
    data = dataset.open(out)
    return data.to_arrow().to_pylist(), data.failures().to_pylist(), data.features, data.spaces


def _rows_of_torch(out: str) -> list[Any]:
    return list(dataset.open(out).to_torch())


def _state(out: str) -> Any:
    """What the next run reads: keys of rows and failures, and what a killed run left."""
    root = f"{out}/v1"
    base = snapshots.newest(root)
    rows = [table.num_rows for table in index.of_snapshot(root, base, index.RetryPolicy())] if base else []
    killed = [index.killed_run(root, RUNS[3])]
    return rows, [table.num_rows for table in index.of_killed(root, killed, len(base.files()) if base else 0)]


STEPS: dict[str, Callable[[str], Any]] = {
    "open": lambda out: repr(dataset.open(out)),
    "read": _whole,
    "torch": _rows_of_torch,
    "old": lambda out: dataset.open(out, snapshot=1).to_arrow(["sample_id"]).to_pylist(),
    "pinned": lambda out: dataset.open(out, snapshot="pinned").to_arrow(["sample_id"]).to_pylist(),
    "pin": lambda out: maintenance.pin(out, "more", at=2),
    "unpin": lambda out: maintenance.unpin(out, "pinned"),
    "inspect": lambda out: _shown(describe.show, out, 2),
    "snapshots": lambda out: _shown(lambda path, console: describe_versions.show_snapshots(path, None, console), out),
    "versions": lambda out: _shown(describe_versions.show_versions, out),
    "vacuum": lambda out: maintenance.vacuum(out, 0.0),
    "compact": lambda out: maintenance.compact(out),
    "rollback": lambda out: maintenance.rollback(out, 1),
    "forget": lambda out: maintenance.forget(out, ["a"]),
    "state": _state,
    "use": lambda out: maintenance.use(out, "v1"),
}
_READS = ("state", "read", "torch", "inspect", "old", "compact")


class _Dataset:
    seconds, memory_mb, starts = 6.0, 512, False

    def __init__(self, work: Path) -> None:
        import ray.data  # noqa: F401  it registers types of columns whose values unpickle
        import torch  # noqa: F401  not within an input's memory

        self.base = work / "base"
        root = self.base / "v1"
        night(root, RUNS[0], ["a", "b", "c"], {1: "corrupt"})
        (old,) = [f"data/{path.name}" for path in (root / "data").iterdir()]
        night(root, RUNS[1], ["a"], drops={old: [0]})
        maintenance.compact(str(self.base))
        night(root, RUNS[2], ["d", "e"], {0: "io"})
        maintenance.pin(str(self.base), "pinned", at=1)
        maintenance.pin(str(self.base), "until", at=2, until="2100-01-01")
        write(root, RUNS[3], ["f"])  # a run that was killed
        (root / "_running").mkdir(exist_ok=True)
        announced = {"base": max(snapshots.numbers(str(root))), "identity": "a" * 64}
        (root / "_running" / f"{RUNS[3]}.json").write_text(json.dumps(announced))
        files = sorted(path for path in self.base.rglob("*") if path.is_file())
        self.shards = [str(path.relative_to(self.base)) for path in files if path.suffix == ".parquet"]
        self.others = [str(path.relative_to(self.base)) for path in files if path.suffix != ".parquet"]

    def prepare(self, box: Path) -> None:
        shutil.copytree(self.base, box, dirs_exist_ok=True)

    def run(self, box: Path, case: Case) -> Any:
        return [STEPS[step](str(box)) for step in case.steps]


class Snapshots(_Dataset):
    def case(self, rng: random.Random) -> Case:
        case = Case(steps=[rng.choice(tuple(STEPS)) for _ in range(rng.choice((1, 1, 2)))])
        for _ in range(rng.choice((1, 1, 2))):
            kind, name = rng.random(), rng.choice(self.others)
            if kind < 0.8:
                case.files[name] = self._changed(rng, name)
            elif kind < 0.92:
                target = rng.choice((OUTSIDE, "../outside", f"{OUTSIDE}/key.parquet", f"{OUTSIDE}/secret.txt", name))
                case.links[self._somewhere(rng)] = target
            elif kind < 0.95:
                case.pipes.append(self._somewhere(rng))
            else:
                case.removed.append(self._somewhere(rng))
        return case

    def _changed(self, rng: random.Random, name: str) -> bytes:
        data = (self.base / name).read_bytes()
        if rng.random() < 0.2:
            return mutation.changed(rng, data)
        if rng.random() < 0.05:
            return rng.choice((b"", b"null", b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe{}", b"[]", b"1e999"))
        try:
            tree = json.loads(data)
        except ValueError:
            return mutation.changed(rng, data)
        try:
            return json.dumps(self._with_paths(rng, mutation.structure(rng, tree))).encode()
        except RecursionError:
            return b"[" * 100_000

    def _with_paths(self, rng: random.Random, tree: Any) -> Any:
        """Of what names a file, now and then a name that leads elsewhere."""
        for parent, key in list(mutation._places(tree)):
            if key in ("path", "pending", "superseded", "run_id") and rng.random() < 0.3:
                parent[key] = rng.choice(mutation.STRINGS)
        return tree

    def _somewhere(self, rng: random.Random) -> str:
        """A file or a folder of the dataset."""
        path = rng.choice([*self.others, *self.shards])
        parts = path.split(os.sep)
        return os.sep.join(parts[: rng.randrange(2, len(parts) + 1)]) if len(parts) > 1 else path


class Footers(_Dataset):
    def case(self, rng: random.Random) -> Case:
        case = Case(steps=[rng.choice(_READS) for _ in range(rng.choice((1, 1, 2)))])
        name = rng.choice(self.shards)
        data = (self.base / name).read_bytes()
        kind = rng.randrange(6)
        if kind > 3:
            data = self._other_pages(rng, data)
        elif kind == 0:
            cut = max(0, len(data) - int.from_bytes(data[-8:-4], "little") - 8)
            data = data[:cut] + mutation.changed(rng, data[cut:])
        elif kind == 1:
            data = mutation.changed(rng, data)
        elif kind == 2:
            data = self._other_lineage(rng, data)
        else:
            data = self._other_columns(rng, data)
        case.files[name] = data
        return case

    def _other_pages(self, rng: random.Random, data: bytes) -> bytes:
        """Headers of pages, in place: a bit, a byte that goes on, a number that is another."""
        metadata = pq.ParquetFile(io.BytesIO(data)).metadata
        out = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 4))):
            column = metadata.row_group(0).column(rng.randrange(metadata.num_columns))
            start = rng.choice([one for one in (column.dictionary_page_offset, column.data_page_offset) if one])
            at = min(start + rng.randrange(16), len(out) - 1)
            out[at] = rng.choice((out[at] ^ 1 << rng.randrange(8), 0x80, 0xFF, 0x7F, 0, rng.randrange(256)))
        return bytes(out)

    def _other_lineage(self, rng: random.Random, data: bytes) -> bytes:
        table = pq.read_table(io.BytesIO(data))
        metadata = dict(table.schema.metadata or {})
        key = rng.choice(list(metadata) or [b"tessera"])
        try:
            metadata[key] = json.dumps(mutation.structure(rng, json.loads(metadata[key]))).encode()
        except (ValueError, KeyError, RecursionError):
            metadata[key] = rng.choice((b"", b"null", b"[" * 50_000, b"\xff", b"[1]"))
        return _parquet(table.replace_schema_metadata(metadata))

    def _other_columns(self, rng: random.Random, data: bytes) -> bytes:
        table = pq.read_table(io.BytesIO(data))
        for _ in range(rng.choice((1, 1, 2))):
            at = rng.randrange(table.num_columns)
            name = table.schema.names[at]
            kind = rng.randrange(5)
            if kind == 0:
                table = table.remove_column(at)
            elif kind == 1:
                field, array = _extension(rng, name, len(table))
                table = table.set_column(at, field, array)
            elif kind == 2:
                marks = {b"ARROW:extension:name": rng.choice(EXTENSIONS).encode(), b"ARROW:extension:metadata": b"[2]"}
                table = table.set_column(at, table.schema.field(at).with_metadata(marks), table.column(at))
            elif kind == 3:
                table = table.append_column(rng.choice((name, "new", "\x1b[31m")), pa.nulls(len(table), pa.int64()))
            else:
                values = pa.array([_plain(mutation.value(rng)) for _ in range(len(table))], pa.string())
                table = table.set_column(at, name, values)
        return _parquet(table)


def _plain(value: Any) -> str:
    try:
        return str(value).encode("utf-8", "replace").decode()
    except RecursionError:
        return "deep"


def _parquet(table: pa.Table) -> bytes:
    out = io.BytesIO()
    try:
        pq.write_table(table, out)
    except (pa.ArrowException, ValueError):
        return b"PAR1"
    return out.getvalue()
