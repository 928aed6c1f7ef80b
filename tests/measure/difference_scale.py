"""How listing and difference grow: `python -m tests.measure.difference_scale files DIR` or `manifest FILE.parquet`.

`python -m tests.measure.difference_scale write PATH N` makes what they read: a manifest of N URIs where PATH ends with
``.parquet``, else a folder of N small text files.

Two processes: a first run against nothing, and one against a dataset that holds every sample already (written here with
one small column, in shards of 20,000 rows). Each prints seconds and its own peak memory.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import config as configs
from pipeline import sources
from pipeline.core.schema import FIXED
from pipeline.dataset.commit import snapshots
from pipeline.dataset.commit.data_files import File, FileSet
from pipeline.dataset.diff import index
from pipeline.dataset.diff.index import RetryPolicy
from pipeline.run import planning

_ROWS = 20_000


def settings(kind: str, path: str, out: str) -> configs.PipelineConfig:
    source: dict[str, Any] = {"kind": kind, "path": path}
    if kind == "manifest":
        source["columns"] = {"image": "uri"}
    modality = "text" if kind == "files" else "image"
    feature = {
        "modality": modality,
        "tokenizer": {"kind": "text" if kind == "files" else "patch"},
        "encoder": {"kind": "raw"},
    }
    return configs.parse({"source": source, "output": {"path": out}, "features": {"f": feature}})


def measure(kind: str, path: str, out: str) -> None:
    started = time.perf_counter()
    base = snapshots.newest(f"{out}/v1")
    stored = index.of_snapshot(f"{out}/v1", base, RetryPolicy()) if base else iter(())
    made = planning.make(settings(kind, path, out), stored, (), f"{out}/plan")
    done = {
        "samples": made.samples,
        "counts": {name: count for name, count in vars(made.difference.counts).items() if count},
        "seconds": round(time.perf_counter() - started, 1),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(done), flush=True)


def hold(kind: str, path: str, out: str) -> None:
    """A dataset of every listed sample, in the listing's order."""
    source = sources.build(settings(kind, path, out).source)
    source.check("source")
    shards: list[File] = []
    folder = Path(out) / "v1" / "data"
    folder.mkdir(parents=True)
    held: list[pa.Table] = []

    def flush() -> None:
        table = pa.concat_tables(held)
        held.clear()
        for start in range(0, len(table), _ROWS):
            rows = table.slice(start, _ROWS)
            columns = [
                rows["sample_id"],
                pa.array(np.zeros(len(rows), np.int32)),
                *(pa.nulls(len(rows), pa.float64()) for _ in range(2)),
                rows["source_version"],
                pa.array(["20260101T000000-0001"] * len(rows)),
            ]
            name = f"data/20260101T000000-0001-{len(shards):06d}-000.parquet"
            pq.write_table(pa.table(columns, schema=FIXED), Path(out) / "v1" / name, compression="zstd")
            shards.append(File(name, len(rows), 1, "0" * 64))

    for table in source.list():
        held.append(table.select(["sample_id", "source_version"]))
        if sum(map(len, held)) >= _ROWS:
            flush()
    if held:
        flush()
    files = FileSet(tuple(shards))
    snapshots.commit(f"{out}/v1", snapshots.next_snapshot(None, "20260101T000000-0001", "extract", {}, files))


def write(path: str, count: str) -> None:
    rows = int(count)
    if path.endswith(".parquet"):
        with pq.ParquetWriter(path, pa.schema({"id": pa.string(), "uri": pa.string()})) as file:
            for start in range(0, rows, 1_000_000):
                names = [f"{i:010x}" for i in range(start, min(rows, start + 1_000_000))]
                uris = [f"s3://corpus/images/{name[-4:]}/{name}.jpg" for name in names]
                file.write_table(pa.table({"id": names, "uri": uris}))
        return
    for i in range(rows):
        folder = Path(path) / f"{i % 1000:03}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:09}.txt").write_text(f"text {i}")


def main() -> None:
    if sys.argv[1] == "write":
        write(*sys.argv[2:])
        return
    if sys.argv[1] in ("measure", "hold"):
        {"measure": measure, "hold": hold}[sys.argv[1]](*sys.argv[2:])
        return
    with tempfile.TemporaryDirectory() as out:
        for step in ("measure", "hold", "measure"):
            subprocess.run(
                [sys.executable, "-m", "tests.measure.difference_scale", step, *sys.argv[1:], out], check=True
            )


if __name__ == "__main__":
    main()
