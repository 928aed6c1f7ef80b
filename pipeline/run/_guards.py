"""Context managers around a run: a report if it breaks off, an interrupt if it loses its lease."""

from __future__ import annotations

import _thread
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

from pipeline.config.bound import BoundConfig
from pipeline.core.errors import TesseraError, describe, one_line
from pipeline.dataset.commit.lease import Lease
from pipeline.dataset.commit.transaction import Transaction
from pipeline.run import report as reporting


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
        if isinstance(error, Exception):
            cause = one_line(str(error)) if isinstance(error, TesseraError) else describe(error)
        else:  # a signal
            cause = "interrupted"
        report = {**reporting.of_broken_run(bound, transaction.run_id, started, time.time(), cause), **known}
        with contextlib.suppress(Exception):  # the cause may also prevent this; the first error is raised
            path = f"_runs/{transaction.run_id}/report.json"
            transaction.folder.publish(path, json.dumps(report, indent=1).encode())
        raise


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
