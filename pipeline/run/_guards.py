"""Context managers around a run: a report if it breaks off, lineage events, an interrupt if it loses its lease."""

from __future__ import annotations

import _thread
import contextlib
import datetime
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from pipeline.config.bound import BoundConfig
from pipeline.core.errors import TesseraError, describe, one_line
from pipeline.core.schema import FIXED
from pipeline.core.versions import installed
from pipeline.dataset.commit.lease import Lease
from pipeline.dataset.commit.transaction import Transaction
from pipeline.run import report as reporting
from pipeline.telemetry import openlineage
from pipeline.telemetry.openlineage import LineageRun


@contextlib.contextmanager
def report_if_broken(bound: BoundConfig, transaction: Transaction, started: float) -> Iterator[dict[str, Any]]:
    """Publishes a report with the cause if the body raises before its commit.

    Yields:
        further keys of that report, which the body adds as soon as it knows them.
    """
    known = dict[str, Any]()
    try:
        yield known
    except BaseException as error:
        if transaction.committed:
            raise
        broken = reporting.of_broken_run(bound, transaction.run_id, started, time.time(), cause_of(error))
        report = {**broken, **known}
        with contextlib.suppress(Exception):  # the cause may also prevent this; the first error is raised
            path = f"_runs/{transaction.run_id}/report.json"
            transaction.folder.publish(path, json.dumps(report, indent=1).encode())
        raise


@contextlib.contextmanager
def lineage_events(bound: BoundConfig, run_id: str, started: float) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Emits OpenLineage events of a run: START, and at its end COMPLETE, FAIL or ABORT.

    Yields:
        a function that the body calls with the report of the run once that is committed.
    """
    config = bound.config
    job = f"{os.path.basename(config.output.path.rstrip('/'))}.{config.output.version}"
    start = datetime.datetime.fromtimestamp(started, datetime.UTC)
    version = installed().get("ray") if bound.engine == "ray" else None
    what = run_id, job, [config.source.path], config.output.path, str(config.output.version), bound.engine, start
    lineage = openlineage.start(config.openlineage, LineageRun(*what, engine_version=version))
    reports = list[dict[str, Any]]()
    columns = [
        (field.name, str(field.type)) for field in (*FIXED, *(f for one in bound.features for f in one.fields()))
    ]
    try:
        yield reports.append
    except BaseException as error:
        is_signal = not isinstance(error, Exception)
        lineage.end(reports[-1] if reports else None, columns, cause_of(error), interrupted=is_signal)
        raise
    report = reports[-1]
    lineage.end(report, columns)
    report["warnings"] += lineage.warnings


def cause_of(error: BaseException) -> str:
    """Returns why a run broke off, on one line."""
    if not isinstance(error, Exception):
        return "interrupted"  # a signal
    return one_line(str(error)) if isinstance(error, TesseraError) else describe(error)


@contextlib.contextmanager
def interrupt_if_lease_lost(lease: Lease) -> Iterator[None]:
    """Interrupts the body when another run has taken over the lease: what it would still write is never committed.

    Raises:
        TesseraError: the lease was lost.
    """
    if threading.current_thread() is threading.main_thread():
        lease.on_lost = _thread.interrupt_main
    try:
        yield
    except BaseException:  # whatever the program's own handler of SIGINT raises
        if lease.lost:
            lease.check()
        raise
    finally:
        lease.on_lost = lambda: None
