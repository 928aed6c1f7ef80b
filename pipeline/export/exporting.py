"""Exports the rows of one snapshot for another library.

export_dataset("OUT", "shards", "webdataset", columns=["photo_embedding"])
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Literal, get_args

from pipeline import dataset as datasets
from pipeline.core.errors import ConfigError
from pipeline.core.terminal import count
from pipeline.export.destination import Destination, check_url
from pipeline.export.formats import datasets as datasets_format
from pipeline.export.formats import lance as lance_format
from pipeline.export.formats import webdataset as webdataset_format
from pipeline.export.limits import ShardLimits
from pipeline.export.pinning import SnapshotPin
from pipeline.export.results import ExportResult
from pipeline.export.rows import Rows

Format = Literal["webdataset", "lance", "datasets"]
FORMATS: tuple[str, ...] = get_args(Format)
_WRITERS = {"webdataset": webdataset_format, "lance": lance_format, "datasets": datasets_format}


def export_dataset(
    path: str,
    out: str,
    format: Format,
    columns: Sequence[str] = (),
    version: str | None = None,
    snapshot: int | str | None = None,
    limits: ShardLimits | None = None,
    report: Callable[[str], None] = lambda text: None,
) -> ExportResult:
    """Writes the rows of a snapshot that are not deleted, in their order, with the library of ``format``.

    Some hundred rows are in memory at a time. The snapshot is pinned meanwhile, if the dataset can be written.

    Args:
        path: a dataset, or the folder of one version; a local path or any fsspec URL.
        out: a new or an empty folder, or a URL (for ``lance``: ``s3://`` and what else Lance knows).
        format: ``webdataset``, ``lance`` or ``datasets``.
        columns: names, or several names with commas between them; empty: all.
        version: None: the current one.
        snapshot: number of a snapshot, or name of a pin; None: the newest.
        limits: of a file; None: 1 GiB.
        report: called with a line about the progress.

    Raises:
        ConfigError: no such dataset, version, snapshot or column; something is at ``out``; the library is not
            installed, or cannot store a column.
        StorageError: ``out`` cannot be written. What was written to a local folder is removed.
    """
    if format not in FORMATS:
        raise ConfigError("--format", f"found {format!r}", f"one of: {', '.join(FORMATS)}")
    started, writer = time.perf_counter(), _WRITERS[format]
    check_url(out)
    writer.check(out)
    data = datasets.open(path, version, snapshot)
    destination = Destination(out, data, path)
    with SnapshotPin(data.root, data.snapshot) as pin:

        def on_batch(done: int) -> None:
            pin.renew()
            report(f"exported {done} of {count(data.num_rows, 'row')}")

        rows = Rows(data, columns, on_batch)
        with destination:
            destination.begin(format, rows.columns)
            warnings = writer.write(rows, destination, limits or ShardLimits())
            files, size = destination.size()
            report("finishing")
            destination.finish(format, rows.columns)
    seconds = round(time.perf_counter() - started, 3)
    warnings = [*([pin.warning] if pin.warning else []), *warnings]
    return _result(path, out, format, rows, files, size, pin.is_pinned, seconds, warnings)


def _result(
    path: str,
    out: str,
    format: str,
    rows: Rows,
    files: int,
    size: int,
    pinned: bool,
    seconds: float,
    warnings: list[str],
) -> ExportResult:
    data = rows.dataset
    return ExportResult(
        dataset=path,
        version=data.root.rsplit("/", 1)[-1],
        snapshot=data.snapshot,
        created=data.created.isoformat(),
        run_id=data.run_id,
        format=format,
        output=out,
        rows=data.num_rows,
        columns=tuple(rows.columns),
        files=files,
        bytes=size,
        pinned=pinned,
        seconds=seconds,
        warnings=tuple(warnings),
    )
