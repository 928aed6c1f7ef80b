"""Exports the metrics of this process for Prometheus: at a port, in a text file for node_exporter, or both."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from pipeline.core.errors import ConfigError, StorageError, describe
from pipeline.core.system.periodic_task import PeriodicTask
from pipeline.storage.publication import publish
from pipeline.telemetry import host, metrics, recording
from pipeline.telemetry.config import MetricsConfig
from pipeline.telemetry.metrics import Metric

if TYPE_CHECKING:
    from prometheus_client.core import Metric as Family

    from pipeline.telemetry._metrics_server import MetricsServer

_EVERY_S = 15.0
"""Seconds between two versions of the text file."""
_MAX_FILE_BYTES = 1 << 20
_HELD = threading.Lock()
"""Held while an exporter of this process is open."""


@contextmanager
def exporting(config: MetricsConfig, output: str) -> Iterator[None]:
    """Exports metrics in the block, if the config names a port or a file. Inside of another such block it does nothing:
    a night exports from its begin to its end, whatever it runs.

    Args:
        output: URL of the dataset, whose disk is measured.

    Raises:
        ConfigError: the port or the file cannot be used.
    """
    if (config.port is None and config.textfile is None) or not _HELD.acquire(blocking=False):
        yield
        return
    try:
        with PrometheusExporter(config, output):
            yield
    finally:
        _HELD.release()


class PrometheusExporter:
    """A recorder whose values Prometheus reads. A context manager.

    Args:
        config: with a port, a file or both.
        output: URL of the dataset, whose disk is measured.

    Raises:
        ConfigError: the port or the file cannot be used.
    """

    def __init__(self, config: MetricsConfig, output: str) -> None:
        self.config, self.output = config, output
        self.values: dict[Metric, dict[tuple[str, ...], float]] = {metric: {} for metric in metrics.METRICS}
        self.lock = threading.Lock()
        self.textfile = None if config.textfile is None else os.path.abspath(config.textfile)
        self._server: MetricsServer | None = None
        self._writer: PeriodicTask | None = None
        self._has_warned = False

    def __enter__(self) -> PrometheusExporter:
        from prometheus_client import CollectorRegistry

        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._begin_counters()
        if self.textfile is not None:
            self._read_kept()
        recording.use(self)
        try:
            if self.textfile is not None:
                self._begin_file()
            if self.config.port is not None:
                self._listen()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the server, and writes the last values to the file."""
        if self._server is not None:
            self._server.close()
        if self._writer is not None:
            self._writer.close()
            self._write()
        recording.remove(self)

    def add(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        with self.lock:
            series = self.values[metric]
            series[labels] = series.get(labels, 0.0) + value

    def set(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        with self.lock:
            self.values[metric][labels] = value

    def collect(self) -> Iterable[Family]:
        """Yields the metrics as `prometheus_client` takes them."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        recording.refresh()
        for metric, labels, value in host.gauges(self.output):
            self.set(metric, labels, value)
        with self.lock:
            values = {metric: dict(series) for metric, series in self.values.items() if series}
        for metric, series in values.items():
            family = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            found = family(metric.name, metric.help, labels=(metrics.CONFIG, *metric.labels))
            for labels, value in series.items():
                found.add_metric((self.config.name, *labels), value)
            yield found

    def _begin_counters(self) -> None:
        """Sets counters to zero: Prometheus sees no increase from a series that is not there to one that is."""
        for metric in metrics.METRICS:
            if metric.kind == "counter":
                combinations: list[tuple[str, ...]] = [()]
                for label in metric.labels:
                    combinations = [(*one, value) for one in combinations for value in metrics.VALUES[label]]
                self.values[metric] = dict.fromkeys(combinations, 0.0)

    def _listen(self) -> None:
        from pipeline.telemetry._metrics_server import MetricsServer

        host_name, port = self.config.host, self.config.port
        assert port is not None
        try:
            self._server = MetricsServer(host_name, port, self._registry)
        except OSError as error:
            found = f"cannot listen at {host_name}:{port} ({describe(error)})"
            raise ConfigError("metrics.port", found, "a free port, and an address of this machine") from error

    def _begin_file(self) -> None:
        assert self.textfile is not None
        allowed = "a file in a folder that exists and that this user may write to"
        if not os.path.isdir(os.path.dirname(self.textfile)):
            raise ConfigError("metrics.textfile", f"{self.textfile!r}: its folder does not exist", allowed)
        try:
            publish(self.textfile, self._text())
        except StorageError as error:
            raise ConfigError("metrics.textfile", str(error), allowed) from error
        self._writer = PeriodicTask(self._write, _EVERY_S, "tessera-metrics")
        self._writer.__enter__()

    def _text(self) -> bytes:
        from prometheus_client import generate_latest

        return generate_latest(self._registry)

    def _write(self) -> None:
        """Replaces the file. A disk that is full ends no run; the values of the last version remain."""
        assert self.textfile is not None
        try:
            publish(self.textfile, self._text())
        except StorageError as error:
            if not self._has_warned:
                logging.getLogger(__name__).warning("metrics.textfile: %s", error)
            self._has_warned = True

    def _read_kept(self) -> None:
        """Takes over what the file keeps of earlier nights. A file that does not fit is ignored."""
        from prometheus_client.parser import text_string_to_metric_families

        assert self.textfile is not None
        with suppress(OSError, ValueError, KeyError), open(self.textfile, "rb") as file:
            text = file.read(_MAX_FILE_BYTES).decode()
            for family in text_string_to_metric_families(text):
                metric = metrics.BY_NAME.get(family.name)
                if metric in metrics.KEPT:
                    for one in family.samples:
                        if one.labels == {metrics.CONFIG: self.config.name}:
                            self.values[metric][()] = one.value
