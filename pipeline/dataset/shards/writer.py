"""Rows -> Parquet shards, failed cells -> failure shards. Published whole or not at all; a task's record comes last."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.core.schema import EMPTY, FAILURES, METERS
from pipeline.dataset.commit.folder import DatasetFolder
from pipeline.dataset.diff.index import RECORD, TASK
from pipeline.dataset.output import OutputConfig
from pipeline.dataset.shards.row_files import RowFiles, _Shard
from pipeline.dataset.shards.write_result import Written


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
