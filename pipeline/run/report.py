"""What a run did, and with what: for a machine (stable keys, JSON) and for a terminal."""

from __future__ import annotations

import datetime
import platform
from dataclasses import asdict
from typing import Any

from pipeline.config.bound import BoundConfig
from pipeline.config.features import BoundFeature
from pipeline.core.terminal import Console, count, print_table, print_wrapped, size
from pipeline.core.versions import installed
from pipeline.dataset.shards.write_result import Written
from pipeline.engine.spec import PipelineSpec
from pipeline.run.planning import Plan

CLASSES = ("new", "changed", "unchanged", "deleted", "retried", "forgotten")
"""What the difference of corpus and dataset finds."""


def build(
    prepared: BoundConfig,
    plan: Plan,
    written: Written,
    *,
    run_id: str,
    started: float,
    ended: float,
    startup_seconds: float | None,
    peak_memory_bytes: int,
    devices: dict[str, float] | None,
    workers: dict[str, int] | None,
    versions: dict[str, str],
) -> dict[str, Any]:
    """The report of a finished run. Keys are stable; times in seconds, sizes in bytes.

    ``seconds_by_stage`` are summed over workers. ``rows_per_second`` counts from the first encoded row, and is None for
    less than a second of them. ``startup_seconds`` is what passed before it. ``decoded`` counts decoding calls.
    ``bytes_moved`` went from stage to stage through the object store.

    Args:
        started, ended: seconds since the epoch.
        peak_memory_bytes: of this machine's processes.
        devices: what computed, as `cluster.devices` says; None: nothing was computed.
        workers: the worker processes of the whole cluster, and the sum of their peaks in bytes; None: there were none.
    """
    seconds = ended - started
    steady = seconds - (startup_seconds or 0.0)
    rows = written.rows_written + written.rows_failed
    meters = written.meters
    stages = {stage: meters.get(f"{stage}_s", 0.0) for stage in ("probe", "decode", "tokenize", "encode")}
    return {
        **_header(prepared, run_id, "complete", started, ended),
        "devices": devices,
        "samples": plan.samples,
        "samples_by_class": asdict(plan.difference.counts),
        "samples_unused": plan.unused,
        "files_left_out": dict(plan.left_out),
        "warnings": list(plan.warnings),
        "windows_empty": written.rows_empty,
        "rows_planned": rows,
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
        "decoded": int(meters.get("decoded", 0)),
        "failures_by_kind": dict(sorted(written.failures_by_kind.items())),
        "failures_by_stage": dict(sorted(written.failures_by_stage.items())),
        "seconds_by_stage": {name: round(value, 3) for name, value in {**stages, "write": written.write_s}.items()},
        "rows_per_second": round(rows / steady, 3) if rows and steady >= 1 else None,
        "startup_seconds": None if startup_seconds is None else round(startup_seconds, 3),
        "bytes_read": int(meters.get("bytes_read", 0)),
        "bytes_moved": int(meters.get("bytes_moved", 0)),
        "bytes_written": sum(int(shard["bytes"]) for shard in [*written.shards, *written.failure_shards]),
        "shards": len(written.shards),
        "peak_memory_bytes": peak_memory_bytes,
        "workers": workers,
        "features": {feature.name: _feature(feature, written) for feature in prepared.features},
        "versions": versions,
    }


def of_broken_run(prepared: BoundConfig, run_id: str, started: float, ended: float, cause: str) -> dict[str, Any]:
    """The report of a run that broke off. What its tasks wrote is taken by the next run."""
    return {**_header(prepared, run_id, "broken off", started, ended), "cause": cause, "versions": installed()}


def _header(prepared: BoundConfig, run_id: str, status: str, started: float, ended: float) -> dict[str, Any]:
    """What the reports of all runs have."""
    return {
        "run_id": run_id,
        "status": status,
        "started": _time(started),
        "ended": _time(ended),
        "seconds": round(ended - started, 3),
        "host": platform.node(),
        "output": prepared.config.output.path,
        "version": prepared.config.output.version,
    }


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="milliseconds")


def _feature(feature: BoundFeature, written: Written) -> dict[str, Any]:
    return {
        **feature.lineage(),
        "written": written.cells_written.get(feature.name, 0),
        "failed": written.cells_failed.get(feature.name, 0),
    }


def show(report: dict[str, Any], console: Console) -> None:
    """The report for a terminal."""
    spaces: dict[str, list[str]] = {}
    rows = []
    for name, one in report["features"].items():
        emitted = ", ".join(one["emit"])
        dim = str(one["dim"] or "–")
        model = one["model_type"] or "–"
        rows.append([name, one["modality"], model, emitted, dim, str(one["written"]), str(one["failed"])])
        spaces.setdefault(one["space"], []).append(name)
    figures = ["dim", "written", "failed"]
    print_table(console, ["feature", "modality", "model", "emits", *figures], rows, figures)
    console.print()
    for space, names in spaces.items():
        print_wrapped(console, f"space {space}: {', '.join(names)}")
    for line in _lines(report):
        print_wrapped(console, line)


def _lines(report: dict[str, Any]) -> list[str]:
    cells = report["cells"]
    lines = [
        _classes(report["samples_by_class"]),
        f"{count(report['samples'], 'sample')} · {count(report['rows_planned'], 'row')}: "
        f"{report['rows_written']} written, {report['rows_failed']} failed · "
        f"{count(cells['planned'], 'cell')}: {cells['written']} written, {cells['failed']} failed",
        f"{report['seconds']:.1f} s, {report['startup_seconds'] or 0:.1f} of them to the first row · "
        f"{_speed(report['rows_per_second'])} rows/s · read {size(report['bytes_read'])} · "
        f"wrote {size(report['bytes_written'])} in {count(report['shards'], 'shard')} · "
        f"peak memory {size(report['peak_memory_bytes'])}",
        "seconds by stage, summed over workers: "
        + ", ".join(f"{name} {seconds:.1f}" for name, seconds in report["seconds_by_stage"].items()),
    ]
    if report["samples_unused"] or report["windows_empty"]:
        lines.append(
            "not extracted, since no feature reads what is in them: "
            f"{count(report['samples_unused'], 'sample')}, {count(report['windows_empty'], 'window')}"
        )
    if report.get("files_left_out"):
        lines.append(_left_out(report["files_left_out"]))
    if report["failures_by_kind"]:
        kinds = ", ".join(f"{number} {kind}" for kind, number in report["failures_by_kind"].items())
        lines.append(f"failures: {kinds}")
    return [*lines, *(f"warning: {one}" for one in report["warnings"])]


def _speed(rows_per_second: float | None) -> str:
    return "–" if rows_per_second is None else f"{rows_per_second:.1f}"


def _classes(counts: dict[str, int]) -> str:
    """``12 new, 3 changed...``: the classes that have any, and always what is unchanged."""
    found = [f"{counts[name]} {name}" for name in CLASSES if counts[name] or name in ("new", "changed", "deleted")]
    rows, outside = "", ""
    if adopted := counts["rows_adopted"]:
        rows = f" ({count(adopted, 'row of an interrupted run is', 'rows of an interrupted run are')} kept)"
    if forbidden := counts["forbidden"]:
        outside = f"; {count(forbidden, 'sample names', 'samples name')} files that the source does not allow"
    return f"samples: {', '.join(found)}{rows}{outside}"


def _left_out(counts: dict[str, int]) -> str:
    """``3 listed files are left out: 2 with '.' in their path, 1 ...``."""
    some = ", ".join(f"{number} {reason}" for reason, number in sorted(counts.items()))
    return f"{count(sum(counts.values()), 'listed file is', 'listed files are')} left out: {some}"


def plan_document(prepared: BoundConfig, plan: Plan, spec: PipelineSpec) -> dict[str, Any]:
    """What a run would do, as plain values. Keys that a report has too have the same meaning."""
    config = prepared.config
    return {
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
        "features": {
            feature.name: {
                **feature.lineage(),
                "encoder": feature.config.encoder.kind,
                "columns": {field.name: str(field.type) for field in feature.fields()},
            }
            for feature in prepared.features
        },
    }


def show_plan(prepared: BoundConfig, plan: Plan, spec: PipelineSpec, console: Console) -> None:
    """What a run would do, for a terminal."""
    config = prepared.config
    for feature in prepared.features:
        print_wrapped(console, f"feature {feature.name}", style="bold")
        for label, value in (
            ("modality", feature.modality),
            ("tokenizer", feature.config.tokenizer.kind),
            ("encoder", f"{feature.config.encoder.kind} ({feature.spec.model_type})"),
            ("head", feature.config.head.kind),
            ("emits", ", ".join(feature.config.emit)),
            ("space", feature.space),
            ("columns", ", ".join(field.name for field in feature.fields())),
        ):
            print_wrapped(console, f"{label}: {value}", indent=2)
    files = ", ".join(f"{number} {role}" for role, number in plan.samples_by_role.items() if number)
    console.print()
    print_wrapped(console, _classes(asdict(plan.difference.counts)))
    print_wrapped(console, f"{count(plan.samples, 'sample')} to extract (files: {files or 'none'})")
    if plan.unused:
        unused = count(plan.unused, "listed sample holds", "listed samples hold")
        print_wrapped(console, f"{unused} nothing that a feature reads")
    if plan.left_out:
        print_wrapped(console, _left_out(plan.left_out))
    for one in plan.warnings:
        print_wrapped(console, f"warning: {one}")
    length = config.window.length_s
    print_wrapped(console, f"windows: {'the whole sample' if length is None else f'{length:g} s'}")
    console.print()
    _show_spec(spec, console)
    console.print(f"output: {config.output.path}", soft_wrap=True)


def _show_spec(spec: PipelineSpec, console: Console) -> None:
    """The pipeline as a table, a line for each stage."""
    table = []
    for row in spec.rows():
        sizes = [row["min_workers"], row["max_workers"]]
        pool = "" if sizes == [None, None] else f" {sizes[0] or 1} to {sizes[1] or 'auto'}"
        table.append(
            [
                row["stage"],
                f"{row['workers']} ({row['kind']}{pool})",
                "auto" if row["cpus"] is None else f"{row['cpus']:g}",
                "auto" if row["gpus"] is None and row["kind"] == "pool" else f"{row['gpus'] or 0:g}",
                str(row["block_rows"]),
                "yes" if row["sandbox"] else "no",
            ]
        )
    figures = ["CPUs", "GPUs", "rows a block"]
    print_table(console, ["stage", "workers", *figures, "sandbox"], table, figures)
