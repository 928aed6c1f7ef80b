"""Reads metrics in Prometheus' text format, and compares them with the report of a run."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families


class Exposition:
    """Samples of one config.

    Args:
        text: in Prometheus' format.
        config: value of the label ``config``.
        prefix: that Ray has put in front of names.
    """

    def __init__(self, text: str, config: str = "default", prefix: str = "") -> None:
        self.samples = [
            (sample.name.removeprefix(prefix), sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name.startswith(f"{prefix}tessera_") and sample.labels.get("config") == config
        ]

    def __call__(self, name: str, **labels: str) -> float:
        """Returns the sum of the series that have ``labels``."""
        return sum(value for other, own, value in self.samples if other == name and labels.items() <= own.items())

    def by(self, name: str, label: str) -> dict[str, int]:
        """Returns the sums by value of a label, without zeros."""
        values = {own[label] for other, own, _ in self.samples if other == name}
        sums = {value: int(self(name, **{label: value})) for value in sorted(values)}
        return {value: found for value, found in sums.items() if found}

    def names(self) -> set[str]:
        return {name for name, _, _ in self.samples}


def read(url: str) -> str:
    """Returns the metrics at a URL, past any proxy."""
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10) as answer:
        text: str = answer.read().decode()
        return text


def differences(found: Exposition, report: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yields what is not the same in the metrics and in the report: its name and both values."""
    rows = {one: int(found("tessera_rows_total", outcome=one)) for one in ("written", "partial", "failed", "empty")}
    pairs = {
        "rows_written": rows["written"] + rows["partial"],
        "rows_failed": rows["failed"],
        "rows_with_failures": rows["failed"] + rows["partial"],
        "windows_empty": rows["empty"],
        "failures_by_kind": found.by("tessera_failures_total", "kind"),
        "failures_by_stage": found.by("tessera_failures_total", "stage"),
        "samples": int(found("tessera_samples_total")),
        "decoded": int(found("tessera_decodings_total")),
        "bytes_read": int(found("tessera_read_bytes_total")),
        "bytes_moved": int(found("tessera_moved_bytes_total")),
        "storage_requests": int(found("tessera_storage_requests_total")),
        "storage_retries": int(found("tessera_storage_retries_total")),
        "shards": int(found("tessera_shards_total")),
        "bytes_written": int(found("tessera_written_bytes_total")),
    }
    yield from ((name, value, report[name]) for name, value in pairs.items() if value != report[name])
    for stage, seconds in report["seconds_by_stage"].items():
        if (value := found(f"tessera_{stage}_seconds_total")) != pytest.approx(seconds, abs=1e-3):
            yield f"{stage}_s", value, seconds
