"""The report of a run and the plan of one, as plain values with stable keys. `_show` prints them on a terminal."""

from __future__ import annotations

import datetime
import platform
from dataclasses import asdict
from typing import Any

from pipeline.config.bound import BoundConfig
from pipeline.config.features import BoundFeature
from pipeline.core.versions import installed
from pipeline.dataset.shards.write_result import Written
from pipeline.engine.spec import Execution, PipelineSpec
from pipeline.run._show import show, show_plan
from pipeline.run.planning import Plan

__all__ = ["build", "of_broken_run", "plan_document", "show", "show_plan"]


def build(
    bound: BoundConfig,
    plan: Plan,
    done: Execution,
    *,
    run_id: str,
    started: float,
    ended: float,
    peak_memory_bytes: int,
    versions: dict[str, str],
) -> dict[str, Any]:
    """Returns the report of a finished run. Keys are stable. Times are in seconds, sizes in bytes.

    - ``seconds_by_stage``: summed over workers.
    - ``startup_seconds``: before the first encoded row.
    - ``rows_per_second``: from the first encoded row on. None if that takes less than a second.
    - ``decoded``: decoding calls.
    - ``bytes_moved``: from stage to stage, through the object store.

    Args:
        started, ended: seconds since the epoch.
        peak_memory_bytes: of the processes on this machine.
    """
    written, seconds = done.written, ended - started
    startup_seconds = None if done.first_row_at is None else done.first_row_at - started
    steady = seconds - (startup_seconds or 0.0)
    rows = written.rows_written + written.rows_failed
    meters = written.meters
    stages = {stage: meters.get(f"{stage}_s", 0.0) for stage in ("probe", "decode", "tokenize", "encode")}
    return {
        **_header(bound, run_id, "partial" if plan.samples_left else "complete", started, ended),
        "devices": done.devices,
        "nodes": done.nodes,
        "ray_job": done.ray_job,
        "samples": plan.samples,
        "samples_left": plan.samples_left,
        "samples_by_class": asdict(plan.difference.counts),
        "samples_unused": plan.unused,
        "files_left_out": dict(plan.left_out),
        "warnings": list(plan.warnings),
        "windows_empty": written.rows_empty,
        "rows_planned": rows,
        **_written_counts(written),
        "decoded": int(meters.get("decoded", 0)),
        "failures_by_kind": dict(sorted(written.failures_by_kind.items())),
        "failures_by_stage": dict(sorted(written.failures_by_stage.items())),
        "seconds_by_stage": {name: round(value, 3) for name, value in {**stages, "write": written.write_s}.items()},
        "rows_per_second": round(rows / steady, 3) if rows and steady >= 1 else None,
        "startup_seconds": None if startup_seconds is None else round(startup_seconds, 3),
        **_read_counts(meters),
        "bytes_written": sum(int(shard["bytes"]) for shard in [*written.shards, *written.failure_shards]),
        "shards": len(written.shards),
        "peak_memory_bytes": peak_memory_bytes,
        "workers": done.workers,
        "features": {feature.name: _feature(feature, written) for feature in bound.features},
        "versions": versions,
    }


def _read_counts(meters: dict[str, float]) -> dict[str, int]:
    """Returns what was read, how often remote files were asked for it, and what moved between stages."""
    return {
        "bytes_read": int(meters.get("bytes_read", 0)),
        "storage_requests": int(meters.get("requests", 0)),
        "storage_retries": int(meters.get("retries", 0)),
        "bytes_moved": int(meters.get("bytes_moved", 0)),
    }


def _written_counts(written: Written) -> dict[str, Any]:
    """Returns how many rows and cells were written or failed."""
    return {
        "rows_written": written.rows_written,
        "rows_failed": written.rows_failed,
        "rows_with_failures": written.rows_failed + written.rows_partial,
        "rows_retried": written.rows_retried,
        "rows_retried_with_failures": written.rows_retried_with_failures,
        "cells": {
            "planned": written.cells_planned,
            "written": sum(written.cells_written.values()),
            "failed": sum(written.cells_failed.values()),
        },
    }


def of_broken_run(bound: BoundConfig, run_id: str, started: float, ended: float, cause: str) -> dict[str, Any]:
    """Returns the report of a run that broke off. The next run reuses what its tasks wrote."""
    return {**_header(bound, run_id, "broken off", started, ended), "cause": cause, "versions": installed()}


def _header(bound: BoundConfig, run_id: str, status: str, started: float, ended: float) -> dict[str, Any]:
    """Returns the keys that the reports of all runs have."""
    return {
        "run_id": run_id,
        "status": status,
        "started": _time(started),
        "ended": _time(ended),
        "seconds": round(ended - started, 3),
        "host": platform.node(),
        "engine": {"kind": bound.engine, "reason": bound.engine_reason},
        "output": bound.config.output.path,
        "version": bound.config.output.version,
    }


def _time(seconds: float) -> str:
    """Returns seconds since the epoch as ISO 8601 in UTC."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="milliseconds")


def _feature(feature: BoundFeature, written: Written) -> dict[str, Any]:
    return {
        **feature.lineage(),
        "written": written.cells_written.get(feature.name, 0),
        "failed": written.cells_failed.get(feature.name, 0),
    }


def plan_document(bound: BoundConfig, plan: Plan, spec: PipelineSpec, machine: dict[str, int] | None) -> dict[str, Any]:
    """Returns what a run would do, as plain values. Keys that are also in a report have the same meaning.

    Args:
        machine: what it would use of this machine. None: that is not known.
    """
    config = bound.config
    return {
        "engine": {"kind": bound.engine, "reason": bound.engine_reason},
        "output": config.output.path,
        "version": config.output.version,
        "samples_by_class": asdict(plan.difference.counts),
        "samples": plan.samples,
        "files_by_role": {role: number for role, number in plan.samples_by_role.items() if number},
        "samples_unused": plan.unused,
        "files_left_out": dict(plan.left_out),
        "warnings": list(plan.warnings),
        "windows": config.window.model_dump(mode="json"),
        "pipeline": spec.rows(),
        "machine": machine,
        "features": {
            feature.name: {
                **feature.lineage(),
                "encoder": feature.config.encoder.kind,
                "columns": {field.name: str(field.type) for field in feature.fields()},
            }
            for feature in bound.features
        },
    }
