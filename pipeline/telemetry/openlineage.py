"""Emits OpenLineage events of a run by the official client: START, then COMPLETE, FAIL or ABORT.

    lineage = start(config.openlineage, LineageRun(...))
    ...
    lineage.end(report, columns)              # COMPLETE
    lineage.end(cause="...")                  # FAIL; with interrupted=True: ABORT
    lineage.warnings                          # lines for the report of the run

Where the events go is the client's own configuration, in the environment: ``OPENLINEAGE_URL``, ``OPENLINEAGE_CONFIG``,
``OPENLINEAGE__TRANSPORT__...``. An event that cannot be sent is a warning. Source: https://openlineage.io/docs/spec
"""

from __future__ import annotations

import datetime
import logging
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field

from pipeline.core.section import Section
from pipeline.telemetry._time_limit import TimeLimit, limited

if TYPE_CHECKING:
    from openlineage.client import OpenLineageClient

_PARENT, _ROOT = "OPENLINEAGE_PARENT_ID", "OPENLINEAGE_ROOT_PARENT_ID"
_THREAD = "tessera-openlineage"
_REASONS = {
    "ConnectionError": "no connection to the server",
    "ConnectTimeout": "no connection to the server",
    "ProxyError": "no connection to the proxy",
    "ReadTimeout": "the server did not answer in time",
    "RetryError": "the server kept answering with an error",
    "SSLError": "the server's certificate is not valid for it, or this machine does not trust it",
}
"""Exceptions of `requests`, by name. Their messages have the URL."""


class OpenLineageConfig(Section):
    """What the events call the job. Where they go is set in the environment."""

    namespace: str = Field(default="tessera", min_length=1, max_length=200)
    """Namespace of the job."""
    job: str | None = Field(default=None, min_length=1, max_length=200)
    """Name of the job; None: that of the config's file."""
    timeout_s: float = Field(default=10.0, gt=0, le=60)
    """Seconds that an event may take, the import of the client included."""


@dataclass(frozen=True)
class LineageRun:
    """What is known of a run when it starts."""

    run_id: str
    job: str
    """Name of the job, if the config has none."""
    sources: Sequence[str]
    """Paths or URLs of the corpus."""
    output: str
    """Path or URL of the dataset."""
    version: str
    """The dataset's version, such as ``v1``."""
    engine: str
    started: datetime.datetime
    """With its offset from UTC."""
    scheduled: datetime.datetime | None = None
    """The time for which a schedule had planned the run; None: ``started``."""
    engine_version: str | None = None
    """None: the engine is a part of Tessera."""


@dataclass(frozen=True)
class LineageEnd:
    """How a run ended."""

    kind: str
    """``COMPLETE``, ``FAIL`` or ``ABORT``."""
    report: Mapping[str, Any]
    """The run's report; may lack any key."""
    columns: Sequence[tuple[str, str]]
    """Name and type of each column of the dataset."""
    cause: str | None


@dataclass(frozen=True)
class RunName:
    """A run of another job, as OpenLineage names it."""

    namespace: str
    job: str
    run_id: str
    """A UUID."""

    @staticmethod
    def of(text: str) -> RunName | None:
        """Parses ``namespace/job/UUID``. None: it is not of that form."""
        start, _, run_id = text.strip().rpartition("/")
        namespace, _, job = start.rpartition("/")
        try:
            uuid.UUID(run_id)
        except ValueError:
            return None
        return RunName(namespace, job, run_id) if namespace and job else None


class Lineage:
    """The events of one run. Create it with `start`.

    Args:
        config: None: no events.
        run: the run.
        environ: may have ``OPENLINEAGE_PARENT_ID`` and ``OPENLINEAGE_ROOT_PARENT_ID``: ``namespace/job/run id``.
    """

    def __init__(self, config: OpenLineageConfig | None, run: LineageRun, environ: Mapping[str, str]) -> None:
        self.config, self.run = config, run
        self.parent, self.root = (RunName.of(environ.get(name, "")) for name in (_PARENT, _ROOT))
        self.warnings: list[str] = []
        """Lines about events that were not sent, or not in full. They have no secret."""
        self._client: OpenLineageClient | None = None
        if config is not None and self.parent is None and environ.get(_PARENT):
            self.warnings.append(f"the events of OpenLineage have no parent: {_PARENT} is not namespace/job/run id")

    def end(
        self,
        report: Mapping[str, Any] | None = None,
        columns: Sequence[tuple[str, str]] = (),
        cause: str | None = None,
        interrupted: bool = False,
    ) -> None:
        """Emits COMPLETE; with a ``cause`` FAIL; with ``interrupted`` ABORT. Raises no ``Exception``.

        Args:
            report: the run's report; for a FAIL after the commit also.
            columns: name and type of each column of the dataset.
            cause: why the run failed. Secrets are replaced by ``***``.
            interrupted: by a signal, or since a resource was lost.
        """
        kind = "ABORT" if interrupted else "COMPLETE" if cause is None else "FAIL"
        self._emit(LineageEnd(kind, report or {}, columns, cause))

    def _emit(self, end: LineageEnd | None) -> None:
        """Emits START, or the event of ``end``."""
        if self.config is None:
            return
        timeout_s, what = self.config.timeout_s, f"the {end.kind if end else 'START'} event of OpenLineage was not sent"
        try:
            limited(lambda: self._send(self.config or OpenLineageConfig(), end), timeout_s, _THREAD)
        except (TimeLimit, TimeoutError):
            self.warnings.append(f"{what}: it took longer than {timeout_s:g} s")
        except Exception as error:
            self.warnings.append(f"{what}: {_reason(error)}")

    def _send(self, config: OpenLineageConfig, end: LineageEnd | None) -> None:
        _silence_loggers()
        # takes a second: without a section of the config nothing of it is imported
        from pipeline.telemetry import _openlineage_events as events

        self._client = self._client or events.client()
        if self._client is None:
            raise _NoTransport
        self._client.emit(events.run_event(config, self.run, end, self.parent, self.root))
        if end is not None:
            self._client.close(config.timeout_s)


def start(config: OpenLineageConfig | None, run: LineageRun, environ: Mapping[str, str] = os.environ) -> Lineage:
    """Emits START and returns what emits the other events. Raises no ``Exception``.

    Args:
        config: the section of the config; None: no events are emitted and the client is not imported.
        run: the run.
        environ: see `Lineage`.
    """
    lineage = Lineage(config, run, environ)
    lineage._emit(None)
    return lineage


def _reason(error: Exception) -> str:
    """Returns why an event was not sent, in words that have no part of a URL."""
    if isinstance(error, ImportError):
        return "install the client with pip install 'tessera[openlineage]'"
    if isinstance(error, _NoTransport):
        return "set OPENLINEAGE_URL, or OPENLINEAGE_CONFIG to the file of the client's configuration"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int):
        return f"the server answered {status}"
    if name := next((one.__name__ for one in type(error).__mro__ if one.__name__ in _REASONS), None):
        return _REASONS[name]
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    return f"the client or its configuration failed ({type(error).__name__})"


class _NoTransport(Exception):
    """The environment does not say where events go."""


class _NotOfThread(logging.Filter):
    """Drops the records of the thread that sends events: attempts that are repeated are no news for a terminal."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.threadName != _THREAD


_NOT_OF_THREAD = _NotOfThread()


def _silence_loggers() -> None:
    """Prevents the client from logging, unless its own variable asks for it: its records have URLs."""
    if not os.environ.get("OPENLINEAGE_CLIENT_LOGGING"):
        logger = logging.getLogger("openlineage")
        logger.propagate = False
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())
    logging.getLogger("urllib3.connectionpool").addFilter(_NOT_OF_THREAD)
