"""Reading for training: CPU seconds against other readers, decoded row groups, resuming, memory, and how well it mixes.

    python -m tests.measure.training_reader speed [--rounds 5] [--scale 1.0]
    python -m tests.measure.training_reader groups | resume | memory | mixing

``speed`` reads the same rows in turn with each reader, in one process, as Arrow batches of 256 rows. `datasets`, Lance
and MosaicML Streaming (``pip install mosaicml-streaming``) read copies in their own format, if they are installed.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import dataset
from pipeline.core.schema import FIXED
from pipeline.dataset.loading.order.epoch import STREAMS, Epoch, Order, default_chunk_rows
from pipeline.dataset.loading.torch_reader import TorchReader
from pipeline.dataset.shards.row_files import parquet_options
from tests.measure.programs import other_readers
from tests.measure.programs.counted_groups import decoded_groups

RUN = "20260101T000000-0001"
BATCH = 256
KINDS = {"embeddings": ("f_embedding", 128_000, 1000), "tokens": ("f_tokens", 16_000, 500)}
"""Kind -> column, rows, and rows of a row group. Embeddings: 512 float32. Tokens: 50 of 256 float16."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "groups", "resume", "memory", "mixing"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="times the rows")
    parser.add_argument("--most", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--path", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.what in ("mixing", "groups"):
        return {"mixing": mixing, "groups": groups}[args.what]()
    if args.path:
        return peak(args.path, args.most)
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            path = write(Path(folder) / kind, kind, args.scale)
            {"speed": speed, "resume": resume, "memory": memory}[args.what](path, kind, args.rounds)
    return None


def write(out: Path, kind: str, scale: float) -> str:
    """Writes a dataset of eight shards with the options of Tessera's writer. Returns its path."""
    column, rows, group = KINDS[kind]
    rows = int(rows * scale) // 8 * 8
    (out / "v1" / "data").mkdir(parents=True)
    (out / "v1" / "_snapshots").mkdir()
    rng = np.random.default_rng(0)
    emit, dims = (["embedding"], {"dim": 512}) if kind == "embeddings" else (["tokens"], {"token_dim": 256})
    lineage = {
        "contract": 1,
        "run_id": RUN,
        "features": {"f": {"modality": "image", "emit": emit, "space": "s", **dims}},
    }
    named = []
    for shard in range(8):
        table = _table(rng, column, rows // 8, shard * rows // 8)
        table = table.replace_schema_metadata({b"tessera": json.dumps(lineage).encode()})
        path = f"data/{RUN}-{shard:03}.parquet"
        with pq.ParquetWriter(out / "v1" / path, table.schema, **parquet_options(table.schema)) as writer:
            writer.write_table(table, row_group_size=group)
        named.append({"path": path, "rows": len(table), "bytes": 1, "sha256": "0" * 64})
    commit = {"contract": 1, "snapshot": 1, "run_id": RUN, "created": "2026-01-01T00:00:00+00:00", "failures": []}
    (out / "v1" / "_snapshots" / "00000001.json").write_text(json.dumps({**commit, "shards": named}))
    return str(out)


def _table(rng: np.random.Generator, column: str, rows: int, first: int) -> pa.Table:
    count = 512 if column == "f_embedding" else 50
    if column == "f_embedding":
        values = pa.array(rng.standard_normal(rows * count).astype(np.float32))
    else:
        values = pa.FixedSizeListArray.from_arrays(
            pa.array(rng.standard_normal(rows * count * 256).astype(np.float16)), 256
        )
    columns = {
        "sample_id": pa.array([f"folder/{i:08}.jpg" for i in range(first, first + rows)]),
        "window": pa.array(np.zeros(rows, np.int32)),
        "source_version": pa.array(["v"] * rows),
        "start_s": pa.nulls(rows, pa.float64()),
        "end_s": pa.nulls(rows, pa.float64()),
        "run_id": pa.array([RUN] * rows),
        column: pa.ListArray.from_arrays(pa.array(np.arange(rows + 1, dtype=np.int32) * count), values),
    }
    schema = pa.schema([*FIXED, pa.field(column, columns[column].type)])
    return pa.table([columns[name] for name in schema.names], schema=schema)


def reader(path: str, column: str, **options: Any) -> TorchReader:
    options = {"shuffle": True, "batch_size": BATCH, "collate": _unchanged, **options}
    return dataset.open(path).to_torch([column], **options)  # type: ignore[return-value]


def _unchanged(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch


def speed(path: str, kind: str, rounds: int) -> None:
    column = KINDS[kind][0]
    readers: dict[str, Callable[[], int]] = {
        "pyarrow iter_batches, stored order": lambda: other_readers.iter_batches(path, column, BATCH),
        "pyarrow.dataset, stored order": lambda: other_readers.scan(path, column, BATCH),
        "Tessera, stored order (batches)": lambda: sum(
            map(len, dataset.open(path).batches([column], batch_size=BATCH))
        ),
        "Tessera, shuffled": lambda: sum(map(len, reader(path, column))),
        **other_readers.copies(path, column, BATCH),
    }
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(rounds):
        for name, read in readers.items():
            started = time.process_time()
            rows = read()
            seconds[name].append(time.process_time() - started)
    base, scan = list(seconds.values())[:2]
    print(f"{kind}, {rows} rows:")
    for name, found in seconds.items():
        ratios = [statistics.median(a / b for a, b in zip(one, found, strict=True)) for one in (base, scan)]
        print(
            f"  {name}: {statistics.median(found):.2f} s of CPU, {rows / statistics.median(found):.0f} rows/s; "
            f"{ratios[0]:.2f} of iter_batches, {ratios[1]:.2f} of a scan"
        )


def groups() -> None:
    """How often row groups of any sizes are decoded, by the reader's own plan, with the defaults."""
    rng = np.random.default_rng(0)
    for name, sizes in {
        "64 of 1,000 rows": np.full(64, 1000),
        "320 of 1,000": np.full(320, 1000),
        "300 of 200 to 1,000": rng.integers(200, 1001, 300),
        "640 of 200 to 1,000": rng.integers(200, 1001, 640),
    }.items():
        chunk = default_chunk_rows(int(sizes.sum()), STREAMS, BATCH)
        print(f"{name}: {STREAMS} streams, chunks of {chunk} rows, {BATCH // chunk} in a batch; decoded")
        for processes in (1, 2, 4, 8, 3, 16):
            decoded = decoded_groups(sizes, STREAMS, chunk, BATCH, processes)
            divides = STREAMS % (processes * (BATCH // chunk)) == 0
            print(
                f"  by {processes} ranks x workers ({'divides' if divides else 'does not divide'}): {decoded:.2f} times"
            )


def resume(path: str, kind: str, rounds: int) -> None:
    column = KINDS[kind][0]
    times: dict[str, list[float]] = {"fresh": [], "at 90 %": []}
    for _ in range(rounds):
        for name, found in times.items():
            one = reader(path, column)
            state = one.state_dict()
            started = time.perf_counter()
            one = reader(path, column)
            if name != "fresh":
                one.load_state_dict({**state, "position": len(one) * 9 // 10})
            next(iter(one))
            found.append(time.perf_counter() - started)
    print(f"{kind}: first batch after " + ", ".join(f"{statistics.median(v):.3f} s {k}" for k, v in times.items()))


def memory(path: str, kind: str, rounds: int) -> None:
    for most in (64, 256, 1024):
        command = [sys.executable, "-m", "tests.measure.training_reader", "memory", "--path", path]
        done = subprocess.run([*command, "--most", str(most << 20)], capture_output=True, text=True, check=True)
        print(f"{kind}, max_open_bytes {most} MiB: {done.stdout.strip()}")


def peak(path: str, most: int) -> None:
    column = KINDS[Path(path).name][0]
    one = reader(path, column, max_open_bytes=most)
    before, marks = _rss(), []
    for number, _ in enumerate(one):
        if number % max(1, len(one) // 4) == 0:
            marks.append(f"{_rss() - before:.0f}")
    status = Path("/proc/self/status").read_text()  # `getrusage` begins with the peak of the process that started this
    most_ever = int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6 - before
    print(
        f"{one.sequence.shape[0]} streams, MB more at each quarter of the epoch: {', '.join(marks)}; peak "
        f"{most_ever:.0f}; {one.counts.decoded_groups} decoded"
    )


def _rss() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def mixing() -> None:
    """Row groups per batch, rows open at a time, and correlation with the stored order, beside a full shuffle."""
    sizes = np.full(1000, 1000)
    rows = int(sizes.sum())
    full = len(sizes) * (1 - (1 - 1 / len(sizes)) ** BATCH)
    print(f"1000 row groups of 1000 rows, batches of {BATCH}; a full shuffle: {full:.0f} row groups per batch")
    for streams, chunk in ((16, 32), (64, 32), (64, 8), (64, 1), (256, 8), (256, 1)):
        epoch = Epoch(Order(sizes, 0, 0, True, streams), chunk)
        distinct = []
        places = np.empty(rows, np.int64)
        for start in range(0, rows, BATCH):
            found = list(epoch.read(start, min(start + BATCH, rows)))
            distinct.append(len({one.group for one in found}))
            at = start
            for one in found:
                places[at : at + one.size] = one.group * 1000 + one.of(epoch.permuted(one))
                at += one.size
        correlation = float(np.corrcoef(places, np.arange(rows))[0, 1])
        print(
            f"  streams={streams}, chunk_rows={chunk}: {statistics.mean(distinct):.1f} row groups per batch, "
            f"{streams / len(sizes):.1%} of the rows open, correlation {correlation:+.3f}"
        )


if __name__ == "__main__":
    main()
