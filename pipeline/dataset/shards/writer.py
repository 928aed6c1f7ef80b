"""Writes the rows of a write task into shards, and its failed cells into failure shards.

Every file is published atomically. The record of the task is published last.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.core.schema import EMPTY_WINDOWS, FAILURES, METERS, UNIT
from pipeline.dataset.commit.folder import DatasetFolder
from pipeline.dataset.diff.index import RECORD, TASK
from pipeline.dataset.output import OutputConfig
from pipeline.dataset.shards.row_files import RowFiles, _Shard
from pipeline.dataset.shards.write_result import Written


class ShardWriter:
    """Writes tables of finished rows into shards of about ``shard_bytes``.

    Rows of new samples are written to ``data/``, where they stay. Rows that replace others are written to the run's
    ``pending/``, and moved after the commit of the snapshot that names them. `close` publishes the record of the task
    last: a task without a record is incomplete.

    Args:
        root: the version's folder.
        name: prefix of the file names. A retried task has the same prefix and overwrites its files.
        run_id: the id of the run.
        features: feature -> the names of its columns. A feature is written if any of them is not null.
        schema: the stored columns, with the metadata of the footer.
        output: the sizes of shards and row groups.
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
        self.result = Written()
        self.rows = {
            replaces: RowFiles(root, schema, output, partial(self.path, "data", replaces)) for replaces in (False, True)
        }
        self.failures: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
        self.empty: list[pa.Table] = []
        self.samples: list[pa.Table] = []

    def add(self, table: pa.Table) -> None:
        """Adds rows as the last stage returns them."""
        if len(table) == 0:
            return
        any_written = pa.array([False] * len(table))
        result = self.result
        for feature, columns in self.features.items():
            valid = pa.array([False] * len(table))
            for column in columns:
                valid = pc.or_(valid, pc.is_valid(table[column]))
            result.cells_written[feature] = result.cells_written.get(feature, 0) + pc.sum(valid).as_py()
            any_written = pc.or_(any_written, valid)
        result.rows += pc.sum(pc.greater_equal(table["window"], 0)).as_py()
        result.samples += pc.sum(table["final"]).as_py()
        self._count_units(table)
        result.windows_promised += pc.sum(table["promised"]).as_py()
        result.cells_planned += pc.sum(table["cells"]).as_py()
        for meter in METERS:
            result.meters[meter] = result.meters.get(meter, 0.0) + (pc.sum(table[f"meter_{meter}"]).as_py() or 0.0)
        table = table.append_column("run_id", pa.array([self.run_id] * len(table), pa.string()))
        self._count_failures(table, any_written.to_pylist())
        self._collect_samples(table, any_written)
        for replaces, stream in self.rows.items():
            rows = table.filter(pc.and_(any_written, pc.equal(table["replaces"], replaces)))
            if len(rows):
                result.rows_written += len(rows)
                stream.add(rows.select(self.schema.names).cast(self.schema))

    def _count_units(self, table: pa.Table) -> None:
        """Counts the finished samples of each unit."""
        for one in pc.value_counts(table[UNIT].filter(table["final"])).to_pylist():
            counts, name = self.result.samples_by_unit, one["values"]
            counts[name] = counts.get(name, 0) + one["counts"]

    def _count_failures(self, table: pa.Table, written: list[bool]) -> None:
        """Counts the failed and retried cells, and keeps the failures for `close`.

        Args:
            table: [n] rows.
            written: [n] whether the row has a feature that did not fail.
        """
        result = self.result
        own = table.select(["sample_id", "window", "source_version", "attempts", "replaces"]).to_pylist()
        for i, failed in enumerate(table["failures"].to_pylist()):
            retried = own[i]["attempts"] is not None
            result.rows_retried += bool(retried and (written[i] or failed))
            if not failed:
                continue
            result.rows_retried_with_failures += retried
            tried = {one["feature"]: one["attempts"] for one in own[i]["attempts"] or ()}
            result.rows_partial += written[i]
            result.rows_failed += not written[i]
            for one in failed:
                feature = one["feature"] or ""
                result.cells_failed[feature] = result.cells_failed.get(feature, 0) + 1
                for counts, key in ((result.failures_by_kind, one["kind"]), (result.failures_by_stage, one["stage"])):
                    counts[key] = counts.get(key, 0) + 1
                more = {"attempts": tried.get(one["feature"], 0) + 1, "row_written": written[i], "run_id": self.run_id}
                self.failures[own[i]["replaces"]].append({**own[i], **one, **more})

    def _collect_samples(self, table: pa.Table, written: pa.Array) -> None:
        """Keeps the windows without content, and the samples of the table, for `close`."""
        has_no_content = pc.and_(pc.invert(written), pc.equal(pc.list_value_length(table["failures"]), 0))
        empty = table.filter(pc.and_(has_no_content, pc.greater_equal(table["window"], 0))).select(EMPTY_WINDOWS.names)
        self.result.rows_empty += len(empty)
        if len(empty):
            self.empty.append(empty.cast(EMPTY_WINDOWS))
        samples = table.filter(pc.greater_equal(table["window"], 0)).select(TASK.names)
        self.samples.append(_distinct(samples).cast(TASK))

    def close(self) -> Written:
        """Publishes all files, then the record of the task, and returns the result."""
        metadata = {k: v for k, v in (self.schema.metadata or {}).items() if k == b"tessera"}
        for stream in self.rows.values():
            self.result.shards += [one.plain() for one in stream.close()]
        for replaces, failures in self.failures.items():
            if failures:
                table = pa.Table.from_pylist(failures, schema=FAILURES.with_metadata(metadata))
                self.result.failure_shards.append(self._publish(table, "_failures", replaces))
        if self.empty:
            self.result.empty_shards.append(self._publish(pa.concat_tables(self.empty), "_empty", False))
        if self.result.rows:
            self._publish_record()
        return self.result

    def abort(self) -> None:
        """Deletes the files that are being written."""
        for stream in self.rows.values():
            stream.abort()

    def path(self, folder: str, replaces: bool, number: int | None = None) -> tuple[str, str | None]:
        """Returns the final path of a file, and its path until it is moved there; None: it is not moved.

        Args:
            folder: one of `data_files.FOLDERS`.
            replaces: the file's rows replace others.
            number: of the file among those of the task; None: there is only one.
        """
        tail = ("" if number is None else f"-{number:03d}") + ("-r" if replaces else "")
        path = f"{folder}/{self.name}{tail}.parquet"
        return path, f"_runs/{self.run_id}/pending/{path}" if replaces else None

    def _publish(self, table: pa.Table, folder: str, replaces: bool) -> dict[str, Any]:
        """Writes a table as one file, and returns it as `File.plain` does."""
        shard = _Shard(self.root, *self.path(folder, replaces), table.schema)
        try:
            shard.write(table, len(table))
        except BaseException:
            shard.abort()
            raise
        return shard.close().plain()

    def _publish_record(self) -> None:
        """Publishes the record: the files of the task, and its samples."""
        result = self.result
        named = {"shards": result.shards, "failures": result.failure_shards, "empty": result.empty_shards}
        samples = _distinct(pa.concat_tables(self.samples))
        buffer = pa.BufferOutputStream()
        pq.write_table(samples.replace_schema_metadata({RECORD: json.dumps(named)}), buffer, compression="zstd")
        path = f"_runs/{self.run_id}/tasks/{self.name}.parquet"
        DatasetFolder(self.root).publish(path, buffer.getvalue().to_pybytes())


def _distinct(samples: pa.Table) -> pa.Table:
    """Returns the distinct rows of ``samples``.

    Without threads of Arrow: with them a run broke off once ("thread index 10 is out of range [0, 10)"), and the table
    is small.
    """
    return samples.group_by(TASK.names, use_threads=False).aggregate([]).select(TASK.names)
