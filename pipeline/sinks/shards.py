"""Rows -> Parquet shards, failed cells -> failure shards. Published whole or not at all; a task's record comes last."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.config import OutputConfig
from pipeline.core.schema import EMPTY, FAILURES, FIXED, METERS
from pipeline.folder import DatasetFolder
from pipeline.snapshots import File
from pipeline.state import RECORD, TASK

_STRINGS = (pa.string(), pa.large_string())


@dataclass
class Written:
    """What one write task did; summed over all tasks by the driver. Picklable."""

    shards: list[dict[str, Any]] = field(default_factory=list)
    failure_shards: list[dict[str, Any]] = field(default_factory=list)
    empty_shards: list[dict[str, Any]] = field(default_factory=list)
    rows: int = 0
    rows_written: int = 0
    rows_failed: int = 0
    rows_partial: int = 0
    """Rows written that lack a feature which failed."""
    rows_retried: int = 0
    """Rows that arrived and had failed before."""
    rows_retried_with_failures: int = 0
    """And have failed again, in one feature or all."""
    rows_empty: int = 0
    """Windows that hold nothing any feature reads: between timed words, or a file of another modality."""
    samples: int = 0
    windows_promised: int = 0
    """Sum over samples of the number of windows that the cut made and that were to be computed."""
    cells_planned: int = 0
    cells_written: dict[str, int] = field(default_factory=dict)
    cells_failed: dict[str, int] = field(default_factory=dict)
    failures_by_kind: dict[str, int] = field(default_factory=dict)
    failures_by_stage: dict[str, int] = field(default_factory=dict)
    meters: dict[str, float] = field(default_factory=dict)
    write_s: float = 0.0

    def add(self, other: Written) -> None:
        for name, value in vars(other).items():
            mine = getattr(self, name)
            if isinstance(value, dict):
                for key, count in value.items():
                    mine[key] = mine.get(key, 0) + count
            else:
                setattr(self, name, mine + value)

    def problems(self) -> list[str]:
        """Why the books do not balance; empty if every planned row and cell is written or failed."""
        found = []
        if self.rows != self.windows_promised:
            found.append(f"{self.windows_promised} windows were cut, {self.rows} rows arrived")
        if self.rows != self.rows_written + self.rows_failed + self.rows_empty:
            found.append(f"{self.rows} rows arrived, {self.rows_written} written, {self.rows_failed} failed")
        cells = sum(self.cells_written.values()) + sum(self.cells_failed.values())
        if self.cells_planned != cells:
            found.append(f"{self.cells_planned} cells planned, {cells} written or failed")
        return found


class ShardWriter:
    """Writes tables of finished rows into shards of about ``shard_bytes``.

    Rows of new samples go to ``data/``, where they stay. Rows that replace others wait in the run's ``pending/`` until
    the snapshot that names them is there. `close` publishes the task's record last of all: what has none is not whole.

    Args:
        root: the dataset's version folder.
        name: prefix of the file names; a retried task has the same one and overwrites its own files.
        run_id: of the rows.
        features: per feature the names of its columns; a feature is written if any is not null.
        schema: the stored columns with the footer's metadata.
        output: sizes.
    """

    def __init__(
        self,
        root: str,
        name: str,
        run_id: str,
        features: dict[str, list[str]],
        schema: pa.Schema,
        output: OutputConfig,
    ) -> None:
        self.root, self.name, self.run_id = root, name, run_id
        self.features, self.schema, self.output = features, schema, output
        self.done = Written()
        self.rows = {
            replaces: RowFiles(root, schema, output, partial(self.path, "data", replaces)) for replaces in (False, True)
        }
        self.failures: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
        self.empty: list[pa.Table] = []
        self.samples: list[pa.Table] = []

    def add(self, table: pa.Table) -> None:
        """Take rows as the last stage left them."""
        if len(table) == 0:
            return
        any_written = pa.array([False] * len(table))
        done = self.done
        for feature, columns in self.features.items():
            valid = pa.array([False] * len(table))
            for column in columns:
                valid = pc.or_(valid, pc.is_valid(table[column]))
            done.cells_written[feature] = done.cells_written.get(feature, 0) + pc.sum(valid).as_py()
            any_written = pc.or_(any_written, valid)
        done.rows += pc.sum(pc.greater_equal(table["window"], 0)).as_py()
        done.samples += pc.sum(table["final"]).as_py()
        done.windows_promised += pc.sum(table["promised"]).as_py()
        done.cells_planned += pc.sum(table["cells"]).as_py()
        for meter in METERS:
            done.meters[meter] = done.meters.get(meter, 0.0) + (pc.sum(table[f"meter_{meter}"]).as_py() or 0.0)
        table = table.append_column("run_id", pa.array([self.run_id] * len(table), pa.string()))
        self._count_failures(table, any_written.to_pylist())
        self._note(table, any_written)
        for replaces, stream in self.rows.items():
            rows = table.filter(pc.and_(any_written, pc.equal(table["replaces"], replaces)))
            if len(rows):
                done.rows_written += len(rows)
                stream.add(rows.select(self.schema.names).cast(self.schema))

    def _count_failures(self, table: pa.Table, written: list[bool]) -> None:
        done = self.done
        own = table.select(["sample_id", "window", "source_version", "attempts", "replaces"]).to_pylist()
        for i, failed in enumerate(table["failures"].to_pylist()):
            retried = own[i]["attempts"] is not None
            done.rows_retried += bool(retried and (written[i] or failed))
            if not failed:
                continue
            done.rows_retried_with_failures += retried
            tried = {one["feature"]: one["attempts"] for one in own[i]["attempts"] or ()}
            done.rows_partial += written[i]
            done.rows_failed += not written[i]
            for one in failed:
                feature = one["feature"] or ""
                done.cells_failed[feature] = done.cells_failed.get(feature, 0) + 1
                for counts, key in ((done.failures_by_kind, one["kind"]), (done.failures_by_stage, one["stage"])):
                    counts[key] = counts.get(key, 0) + 1
                more = {"attempts": tried.get(one["feature"], 0) + 1, "row_written": written[i], "run_id": self.run_id}
                self.failures[own[i]["replaces"]].append({**own[i], **one, **more})

    def _note(self, table: pa.Table, written: pa.Array) -> None:
        """Remember the windows without anything in them, and which samples were met."""
        nothing = pc.and_(pc.invert(written), pc.equal(pc.list_value_length(table["failures"]), 0))
        empty = table.filter(pc.and_(nothing, pc.greater_equal(table["window"], 0))).select(EMPTY.names)
        self.done.rows_empty += len(empty)
        if len(empty):
            self.empty.append(empty.cast(EMPTY))
        met = table.filter(pc.greater_equal(table["window"], 0)).select(TASK.names)
        self.samples.append(met.group_by(TASK.names).aggregate([]).select(TASK.names).cast(TASK))

    def close(self) -> Written:
        """Publish what is open, then the record; the summary of everything taken."""
        metadata = {k: v for k, v in (self.schema.metadata or {}).items() if k == b"tessera"}
        for stream in self.rows.values():
            self.done.shards += [one.plain() for one in stream.close()]
        for replaces, failures in self.failures.items():
            if failures:
                table = pa.Table.from_pylist(failures, schema=FAILURES.with_metadata(metadata))
                self.done.failure_shards.append(self._publish(table, "_failures", replaces))
        if self.empty:
            self.done.empty_shards.append(self._publish(pa.concat_tables(self.empty), "_empty", False))
        if self.done.rows:
            self._record()
        return self.done

    def abort(self) -> None:
        """Leave nothing half-written behind."""
        for stream in self.rows.values():
            stream.abort()

    def path(self, folder: str, replaces: bool, number: int | None = None) -> tuple[str, str | None]:
        """Where a file belongs, and where it waits."""
        tail = ("" if number is None else f"-{number:03d}") + ("-r" if replaces else "")
        path = f"{folder}/{self.name}{tail}.parquet"
        return path, f"_runs/{self.run_id}/pending/{path}" if replaces else None

    def _publish(self, table: pa.Table, folder: str, replaces: bool) -> dict[str, Any]:
        """One whole table as a file."""
        shard = _Shard(self.root, *self.path(folder, replaces), table.schema)
        try:
            shard.write(table, len(table))
        except BaseException:
            shard.abort()
            raise
        return shard.close().plain()

    def _record(self) -> None:
        done = self.done
        named = {"shards": done.shards, "failures": done.failure_shards, "empty": done.empty_shards}
        samples = pa.concat_tables(self.samples).group_by(TASK.names).aggregate([]).select(TASK.names)
        buffer = pa.BufferOutputStream()
        pq.write_table(samples.replace_schema_metadata({RECORD: json.dumps(named)}), buffer, compression="zstd")
        path = f"_runs/{self.run_id}/tasks/{self.name}.parquet"
        DatasetFolder(self.root).publish(path, buffer.getvalue().to_pybytes())


class RowFiles:
    """Rows of one destination on their way into shards of about ``output.shard_bytes``.

    Args:
        root: the dataset's version folder.
        schema: of the files, with the footer's metadata.
        output: sizes.
        path: number of a file -> where it belongs, and where it waits.
    """

    def __init__(
        self, root: str, schema: pa.Schema, output: OutputConfig, path: Callable[[int], tuple[str, str | None]]
    ) -> None:
        self.root, self.schema, self.output, self.path = root, schema, output, path
        self.files: list[File] = []
        self.pending: list[pa.Table] = []
        self.pending_bytes, self.pending_rows, self.count = 0, 0, 0
        self.shard: _Shard | None = None

    def add(self, rows: pa.Table) -> None:
        """Take rows. Whole row groups of them are written, the rest waits for more."""
        self.pending.append(rows)
        self.pending_bytes += rows.nbytes
        self.pending_rows += len(rows)
        if self.pending_bytes >= self.output.row_group_bytes or self.pending_rows >= self.output.row_group_rows:
            self._write_groups(all_rows=False)

    def close(self) -> list[File]:
        """Publish what is open; all files."""
        self._write_groups(all_rows=True)
        if self.shard is not None:
            self._close_shard(self.shard)
        return self.files

    def abort(self) -> None:
        """Leave nothing half-written behind."""
        if self.shard is not None:
            self.shard.abort()
            self.shard = None

    def _write_groups(self, all_rows: bool) -> None:
        """Write what is pending, row group by row group. ``all_rows``: also the last, which may have more to come."""
        if not self.pending:
            return
        table = pa.concat_tables(self.pending).combine_chunks()
        fitting = self.output.row_group_bytes * len(table) // max(1, table.nbytes)
        group = max(1, min(self.output.row_group_rows, fitting))
        start = 0
        while start < len(table) and (all_rows or start + group <= len(table)):
            if self.shard is None:
                self.shard = _Shard(self.root, *self.path(self.count), self.schema)
                self.count += 1
            self.shard.write(table.slice(start, group), group)
            start += group
            if self.shard.size() >= self.output.shard_bytes:
                self._close_shard(self.shard)
        rest = table.slice(start)
        self.pending, self.pending_rows = [rest] if len(rest) else [], len(rest)
        self.pending_bytes = rest.nbytes if len(rest) else 0

    def _close_shard(self, shard: _Shard) -> None:
        self.shard = None
        self.files.append(shard.close())


class _Shard:
    """One Parquet file on its way, hashed as it is written."""

    def __init__(self, root: str, path: str, pending: str | None, schema: pa.Schema) -> None:
        self.path, self.pending, self.schema, self.rows = path, pending, schema, 0
        self.publishing = DatasetFolder(root).publishing(pending or path)
        self.file = _Hashed(self.publishing.__enter__())
        self.writer = pq.ParquetWriter(pa.PythonFile(self.file, mode="w"), schema, **parquet_options(schema))

    def write(self, table: pa.Table, row_group: int) -> None:
        self.writer.write_table(table, row_group_size=max(1, row_group))
        self.rows += len(table)

    def size(self) -> int:
        return self.file.tell()

    def close(self) -> File:
        try:
            self.writer.close()
        except BaseException:
            self.abort()
            raise
        self.publishing.__exit__(None, None, None)
        size, digest = self.file.tell(), self.file.digest.hexdigest()
        return File(self.path, self.rows, size, digest, pending=self.pending)

    def abort(self) -> None:
        error = RuntimeError("write aborted")
        self.file.abandoned = True
        self.publishing.__exit__(type(error), error, None)


class _Hashed:
    """A write-only file that knows the sha256 of what went through."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.count, self.digest = file, 0, hashlib.sha256()
        self.abandoned = False

    def write(self, data: Any) -> int:
        view = memoryview(data)
        if self.abandoned:  # Parquet's writer, collected later, still wants to write its footer
            return view.nbytes
        self.file.write(view)
        self.digest.update(view)
        self.count += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        return self.count

    def flush(self) -> None:
        self.file.flush()

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        """Closing is the publisher's, not Parquet's."""


def parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """No dictionary for vectors (two to five times faster), byte-stream-split for float32 and float64, zstd for all.

    float16 is left plain: DuckDB does not read it split (docs/decisions/0004-float16-is-plain.md).
    """
    dictionary, split = [], []
    for column in schema:
        if column.type in _STRINGS:
            dictionary.append(column.name)
        path, kind = column.name, column.type
        while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
            path, kind = f"{path}.list.element", kind.value_type
        if kind in (pa.float32(), pa.float64()) and path != column.name:
            split.append(path)
    return {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": dictionary,
        "use_byte_stream_split": split,
        "column_encoding": None,
        "write_statistics": [c.name for c in schema if c.name in FIXED.names],
        "write_page_index": True,
    }


def footer(schema: pa.Schema, lineage: dict[str, Any]) -> pa.Schema:
    """``schema`` with the lineage that every shard's metadata carries."""
    return schema.with_metadata({b"tessera": json.dumps(lineage).encode()})
