"""Rows -> Parquet shards, and failed cells -> failure shards. Published whole or not at all."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.config import OutputConfig
from pipeline.schema import FAILURES, FIXED, METERS

_STRINGS = (pa.string(), pa.large_string())


@dataclass
class Written:
    """What one write task did; summed over all tasks by the driver. Picklable."""

    shards: list[dict[str, Any]] = field(default_factory=list)
    failure_shards: list[dict[str, Any]] = field(default_factory=list)
    rows: int = 0
    rows_written: int = 0
    rows_failed: int = 0
    rows_partial: int = 0
    """Rows written that lack a feature which failed."""
    rows_empty: int = 0
    """Windows that hold nothing any feature reads: between timed words, or a file of another modality."""
    samples: int = 0
    windows_promised: int = 0
    """Sum over samples of the number of windows that the cut made."""
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
        self.pending: list[pa.Table] = []
        self.pending_bytes = 0
        self.failures: list[dict[str, Any]] = []
        self.shard: _Shard | None = None

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
        written = any_written.to_pylist()
        done.rows += len(table)
        final = table["final"]
        done.samples += pc.sum(final).as_py()
        done.windows_promised += pc.sum(pc.if_else(final, pc.add(table["window"], 1), 0)).as_py()
        done.cells_planned += pc.sum(table["cells"]).as_py()
        for meter in METERS:
            done.meters[meter] = done.meters.get(meter, 0.0) + (pc.sum(table[f"meter_{meter}"]).as_py() or 0.0)
        self._count_failures(table, written)
        rows = table.filter(any_written)
        if len(rows):
            rows = rows.append_column("run_id", pa.array([self.run_id] * len(rows), pa.string()))
            rows = rows.select(self.schema.names).cast(self.schema)
            done.rows_written += len(rows)
            self.pending.append(rows)
            self.pending_bytes += rows.nbytes
            if self.pending_bytes >= self.output.row_group_bytes:
                self._flush()

    def _count_failures(self, table: pa.Table, written: list[bool]) -> None:
        done = self.done
        ids, windows = table["sample_id"].to_pylist(), table["window"].to_pylist()
        for i, failed in enumerate(table["failures"].to_pylist()):
            if not failed:
                done.rows_empty += not written[i]
                continue
            done.rows_partial += written[i]
            done.rows_failed += not written[i]
            for one in failed:
                feature = one["feature"] or ""
                done.cells_failed[feature] = done.cells_failed.get(feature, 0) + 1
                for counts, key in ((done.failures_by_kind, one["kind"]), (done.failures_by_stage, one["stage"])):
                    counts[key] = counts.get(key, 0) + 1
                self.failures.append(
                    {
                        **one,
                        "sample_id": ids[i],
                        "window": windows[i],
                        "attempts": 1,
                        "row_written": written[i],
                        "run_id": self.run_id,
                    }
                )

    def close(self) -> Written:
        """Publish what is open; the summary of everything taken."""
        self._flush()
        if self.shard is not None:
            self.done.shards.append(self.shard.close())
            self.shard = None
        if self.failures:
            metadata = {k: v for k, v in (self.schema.metadata or {}).items() if k == b"tessera"}
            shard = _Shard(self.root, f"failures/{self.name}.parquet", FAILURES.with_metadata(metadata))
            shard.write(pa.Table.from_pylist(self.failures, schema=shard.schema), len(self.failures))
            self.done.failure_shards.append(shard.close())
            self.failures = []
        return self.done

    def abort(self) -> None:
        """Leave nothing half-written behind."""
        if self.shard is not None:
            self.shard.abort()
            self.shard = None

    def _flush(self) -> None:
        if not self.pending:
            return
        table = pa.concat_tables(self.pending).combine_chunks()
        self.pending, self.pending_bytes = [], 0
        per_row = max(1, table.nbytes // len(table))
        group = max(1, self.output.row_group_bytes // per_row)
        for start in range(0, len(table), group):
            if self.shard is None:
                number = len(self.done.shards)
                self.shard = _Shard(self.root, f"data/{self.name}-{number:03d}.parquet", self.schema)
            self.shard.write(table.slice(start, group), group)
            if self.shard.size() >= self.output.shard_bytes:
                self.done.shards.append(self.shard.close())
                self.shard = None


class _Shard:
    """One Parquet file on its way, hashed as it is written."""

    def __init__(self, root: str, path: str, schema: pa.Schema) -> None:
        self.path, self.schema, self.rows = path, schema, 0
        self.publishing = storage.publishing(storage.join(root, path))
        self.file = _Hashed(self.publishing.__enter__())
        self.writer = pq.ParquetWriter(pa.PythonFile(self.file, mode="w"), schema, **parquet_options(schema))

    def write(self, table: pa.Table, row_group: int) -> None:
        self.writer.write_table(table, row_group_size=max(1, row_group))
        self.rows += len(table)

    def size(self) -> int:
        return self.file.tell()

    def close(self) -> dict[str, Any]:
        try:
            self.writer.close()
        except BaseException:
            self.abort()
            raise
        self.publishing.__exit__(None, None, None)
        return {"path": self.path, "rows": self.rows, "bytes": self.file.tell(), "sha256": self.file.digest.hexdigest()}

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
    }


def footer(schema: pa.Schema, lineage: dict[str, Any]) -> pa.Schema:
    """``schema`` with the lineage that every shard's metadata carries."""
    return schema.with_metadata({b"tessera": json.dumps(lineage).encode()})
