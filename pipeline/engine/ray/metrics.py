"""Exports the metrics of a process through Ray: each node's agent has them at its own port, with the prefix ``ray_``.

Workers of the last step count the rows, write tasks the files, and the driver sets gauges. A process passes its values
to the agent of its node every ten seconds (``RAY_metrics_report_interval_ms``) and when it ends. The agent keeps
counters of processes that have ended, and gauges for twice that time.
"""

from __future__ import annotations

import threading
from typing import Any

from ray.util import metrics as ray_metrics

from pipeline.core.system.periodic_task import PeriodicTask
from pipeline.telemetry import recording
from pipeline.telemetry.config import MetricsConfig
from pipeline.telemetry.metrics import CONFIG, Metric

_AGAIN_S = 5.0
"""Seconds between two reports of the same gauge: Ray reports a gauge only once after it is set."""


class RayRecorder:
    """Passes values to `ray.util.metrics`.

    Args:
        name: value of the label ``config``.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.known: dict[Metric, Any] = {}
        self.gauges: dict[tuple[Metric, tuple[str, ...]], float] = {}
        self.lock = threading.Lock()

    def add(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        self._of_ray(metric).inc(float(value), self._tags(metric, labels))

    def set(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        with self.lock:
            self.gauges[metric, labels] = value
        self._of_ray(metric).set(float(value), self._tags(metric, labels))

    def set_again(self) -> None:
        """Reads the gauges that are watched, and sets all gauges again."""
        recording.refresh()
        with self.lock:
            known = list(self.gauges.items())
        for (metric, labels), value in known:
            self._of_ray(metric).set(float(value), self._tags(metric, labels))

    def _of_ray(self, metric: Metric) -> Any:
        with self.lock:
            if metric not in self.known:
                kind = ray_metrics.Counter if metric.kind == "counter" else ray_metrics.Gauge
                self.known[metric] = kind(metric.name, metric.help, (CONFIG, *metric.labels))
            return self.known[metric]

    def _tags(self, metric: Metric, labels: tuple[str, ...]) -> dict[str, str]:
        return {CONFIG: self.name, **dict(zip(metric.labels, labels, strict=True))}


_used: RayRecorder | None = None
"""The recorder of this process."""
_repeated: PeriodicTask | None = None


def use(config: MetricsConfig, repeats: bool = False) -> None:
    """Counts in this process from now on, or not, as the config says.

    Args:
        repeats: set gauges again and again, until `stop`.
    """
    global _used, _repeated
    if _used is not None and (not config.ray or _used.name != config.name):
        stop()
    if config.ray and _used is None:
        _used = RayRecorder(config.name)
        recording.use(_used)
    if repeats and _used is not None and _repeated is None:
        _repeated = PeriodicTask(_used.set_again, _AGAIN_S, "tessera-metrics")
        _repeated.__enter__()


def stop() -> None:
    """Ends what `use` began. What was counted is still exported."""
    global _used, _repeated
    if _repeated is not None:
        _repeated.close()
    if _used is not None:
        recording.remove(_used)
    _used, _repeated = None, None
