"""The list of metrics: name, type, labels, meaning. Every exporter and docs/operating.md have these and no others.

Names follow Prometheus: base units, ``_total`` for counters. Label values are from closed sets, so that no corpus can
make new series. The label ``config``, which every metric has, is `MetricsConfig.name`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from pipeline.core.errors import FAILURE_KINDS, StageName
from pipeline.core.media import MODALITIES

CONFIG = "config"
"""The label that every metric has."""
NO_MODALITY = "none"
"""Modality of a row whose file could not be identified."""
OTHER = "other"
OUTCOMES = ("written", "partial", "failed", "empty")
"""``written``: with all features. ``partial``: written, a feature failed. ``failed``: all features failed. ``empty``:
the window holds nothing for any feature."""
VALUES: dict[str, tuple[str, ...]] = {
    "modality": (*MODALITIES, NO_MODALITY),
    "outcome": OUTCOMES,
    "kind": (*FAILURE_KINDS, OTHER),
    "stage": (*get_args(StageName), OTHER),
    "phase": ("probe", "decode", "encode", OTHER),
    "place": ("output", "temporary"),
}
"""Values of labels. A value of ``device`` is the number or the UUID of a GPU of the machine."""


@dataclass(frozen=True)
class Metric:
    """One metric.

    Args:
        name: without the prefix ``ray_``, which Ray adds.
        kind: a counter only grows while its process lives; a gauge has the last value.
        help: the meaning, one sentence.
        labels: besides ``config``.
    """

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    labels: tuple[str, ...] = ()

    def closed(self, values: tuple[str, ...]) -> tuple[str, ...]:
        """Returns label values, with ``other`` for each that is not in the closed set of its label."""
        sets = (VALUES.get(label) for label in self.labels)
        return tuple(one if among is None or one in among else OTHER for one, among in zip(values, sets, strict=True))


def _counter(name: str, text: str, *labels: str) -> Metric:
    return Metric(f"tessera_{name}_total", "counter", text, labels)


def _gauge(name: str, text: str, *labels: str) -> Metric:
    return Metric(f"tessera_{name}", "gauge", text, labels)


ROWS = _counter("rows", "Finished rows (windows), by their largest medium and by outcome.", "modality", "outcome")
FAILURES = _counter("failures", "Failed cells (a feature of a row).", "kind", "stage")
SAMPLES = _counter("samples", "Samples whose rows are all finished.")
BLOCKS = _counter("blocks", "Blocks of rows that passed the encoders.")
BLOCK_ROWS = _counter("block_rows", "Rows of these blocks; by tessera_blocks_total: the size of a batch.")
PROBE_S = _counter("probe_seconds", "Seconds of opening files and cutting windows, summed over workers.")
DECODE_S = _counter("decode_seconds", "Seconds of fetching and decoding, summed over workers.")
TOKENIZE_S = _counter("tokenize_seconds", "Seconds of converting media to inputs of models, summed over workers.")
ENCODE_S = _counter("encode_seconds", "Seconds of encoders and heads, summed over workers.")
WRITE_S = _counter("write_seconds", "Seconds of writing shards, summed over workers.")
DECODINGS = _counter("decodings", "Calls of decoders.")
READ_BYTES = _counter("read_bytes", "Bytes of the corpus that were read.")
MOVED_BYTES = _counter("moved_bytes", "Bytes that moved between stages, through Ray's object store.")
REQUESTS = _counter("storage_requests", "Requests for parts of remote files of the corpus.")
RETRIES = _counter("storage_retries", "Those of them that repeated a failed one.")
SHARDS = _counter("shards", "Shards of rows that were written.")
WRITTEN_BYTES = _counter("written_bytes", "Bytes of these shards, and of those of failures.")

SAMPLES_PLANNED = _gauge("samples_planned", "Samples that the run is to compute.")
RUN_ACTIVE = _gauge("run_active", "1 while stages run, else 0.")
RUN_START = _gauge("run_start_timestamp_seconds", "When the stages of the last run began, in Unix time.")
RUN_END = _gauge("run_end_timestamp_seconds", "When they ended, in Unix time.")
QUEUE = _gauge(
    "queue_blocks", "Blocks that wait for a phase; for probe: units of samples. Not from Ray's agents.", "phase"
)
MEMORY = _gauge("memory_bytes", "Memory of the driver's process and its children.")
MEMORY_LIMIT = _gauge(
    "memory_limit_bytes", "Memory that they may use, by the machine and its cgroups. Not from Ray's agents."
)
DEVICE_BUSY = _gauge(
    "device_busy_ratio", "Share of the last second in which a kernel ran. Not from Ray's agents.", "device"
)
DISK_FREE = _gauge(
    "disk_free_bytes",
    "Free bytes of the local disk of the output or of temporary files. Not from Ray's agents.",
    "place",
)
DISK_SIZE = _gauge("disk_size_bytes", "Size of that disk in bytes. Not from Ray's agents.", "place")
LAG_SAMPLES = _gauge("lag_samples", "Samples that are listed and not live in the dataset.")
LAG_AGE = _gauge("lag_oldest_age_seconds", "Age of the oldest of them.")
NIGHT_EXIT = _gauge("night_exit_code", "Exit code of the last tessera nightly.")
NIGHT_END = _gauge("night_end_timestamp_seconds", "When the last tessera nightly ended, in Unix time.")
NIGHT_SUCCESS = _gauge("night_success_timestamp_seconds", "When one last ended complete or partial, in Unix time.")
NIGHT_COMPLETE = _gauge(
    "night_complete_timestamp_seconds", "When one last ended with nothing left for the next, in Unix time."
)
NIGHT_FAILURE = _gauge("night_failure_timestamp_seconds", "When one last failed, in Unix time.")

METRICS: tuple[Metric, ...] = tuple(one for one in list(globals().values()) if isinstance(one, Metric))
"""All metrics, in the order above."""
BY_NAME = {metric.name: metric for metric in METRICS}
KEPT = (LAG_SAMPLES, LAG_AGE, NIGHT_EXIT, NIGHT_END, NIGHT_SUCCESS, NIGHT_COMPLETE, NIGHT_FAILURE)
"""Gauges whose last values a text file keeps from one process to the next."""
METERS: dict[str, Metric] = {
    "probe_s": PROBE_S,
    "decode_s": DECODE_S,
    "tokenize_s": TOKENIZE_S,
    "encode_s": ENCODE_S,
    "bytes_read": READ_BYTES,
    "requests": REQUESTS,
    "retries": RETRIES,
    "decoded": DECODINGS,
    "bytes_moved": MOVED_BYTES,
}
"""Meter of a row (`pipeline.core.schema.METERS`) -> the counter of its sum."""
