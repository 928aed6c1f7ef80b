"""What a run did, and with what: for a machine (stable keys, JSON) and for a terminal."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from pipeline.features import Feature
from pipeline.plan import Plan, Prepared
from pipeline.sinks.shards import Written
from pipeline.terminal import Console

CLASSES = ("new", "changed", "unchanged", "deleted", "retried", "forgotten")
"""What the difference of corpus and dataset finds."""
_PACKAGES = (
    "ray",
    "torch",
    "torchvision",
    "torchaudio",
    "transformers",
    "pyarrow",
    "av",
    "decord",
    "soundfile",
    "pillow",
)


def installed() -> dict[str, str]:
    """Versions of what computes the values; recorded, no part of a fingerprint."""
    found = {"python": platform.python_version()}
    for name in ("tessera", *_PACKAGES):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def build(
    prepared: Prepared,
    plan: Plan,
    written: Written,
    *,
    run_id: str,
    seconds: float,
    startup_seconds: float | None,
    peak_memory_bytes: int,
    versions: dict[str, str],
) -> dict[str, Any]:
    """The report of a finished run. Keys are stable; times in seconds, sizes in bytes.

    ``seconds_by_stage`` are summed over workers. ``rows_per_second`` counts from the first encoded
    row. ``startup_seconds`` is what passed before it. ``decoded`` counts decoding calls. ``bytes_moved``
    went from stage to stage through the object store.
    """
    steady = max(seconds - (startup_seconds or 0.0), 1e-3)
    rows = written.rows_written + written.rows_failed
    meters = written.meters
    stages = {stage: meters.get(f"{stage}_s", 0.0) for stage in ("probe", "decode", "tokenize", "encode")}
    return {
        "run_id": run_id,
        "output": prepared.config.output.path,
        "version": prepared.config.output.version,
        "samples": plan.samples,
        "samples_by_class": asdict(plan.difference.counts),
        "samples_unused": plan.unused,
        "warnings": list(plan.warnings),
        "windows_empty": written.rows_empty,
        "rows_planned": rows,
        "rows_written": written.rows_written,
        "rows_failed": written.rows_failed,
        "rows_with_failures": written.rows_failed + written.rows_partial,
        "cells": {
            "planned": written.cells_planned,
            "written": sum(written.cells_written.values()),
            "failed": sum(written.cells_failed.values()),
        },
        "decoded": int(meters.get("decoded", 0)),
        "failures_by_kind": dict(sorted(written.failures_by_kind.items())),
        "failures_by_stage": dict(sorted(written.failures_by_stage.items())),
        "seconds": round(seconds, 3),
        "seconds_by_stage": {name: round(value, 3) for name, value in {**stages, "write": written.write_s}.items()},
        "rows_per_second": round(rows / steady, 3),
        "startup_seconds": None if startup_seconds is None else round(startup_seconds, 3),
        "bytes_read": int(meters.get("bytes_read", 0)),
        "bytes_moved": int(meters.get("bytes_moved", 0)),
        "bytes_written": sum(int(shard["bytes"]) for shard in [*written.shards, *written.failure_shards]),
        "shards": len(written.shards),
        "peak_memory_bytes": peak_memory_bytes,
        "features": {feature.name: _feature(feature, written) for feature in prepared.features},
        "versions": versions,
    }


def _feature(feature: Feature, written: Written) -> dict[str, Any]:
    return {
        **feature.lineage(),
        "written": written.cells_written.get(feature.name, 0),
        "failed": written.cells_failed.get(feature.name, 0),
    }


def show(report: dict[str, Any], console: Console) -> None:
    """The report for a terminal."""
    console.print(Group(*_parts(report)))


def _parts(report: dict[str, Any]) -> list[RenderableType]:
    features = _table("feature", "modality", "model", "emits", figures=("dim", "written", "failed"))
    spaces: dict[str, list[str]] = {}
    for name, one in report["features"].items():
        features.add_row(
            name,
            one["modality"],
            one["model_type"],
            ", ".join(one["emit"]),
            str(one["dim"] or "–"),
            str(one["written"]),
            str(one["failed"]),
        )
        spaces.setdefault(one["space"], []).append(name)
    cells = report["cells"]
    lines = [
        *(f"space {space}: {', '.join(names)}" for space, names in spaces.items()),
        "",
        f"{report['samples']} samples · {report['rows_planned']} rows: {report['rows_written']} written, "
        f"{report['rows_failed']} failed · {cells['planned']} cells: {cells['written']} written, "
        f"{cells['failed']} failed",
        f"{report['seconds']:.1f} s, {report['startup_seconds'] or 0:.1f} of them to the first row · "
        f"{report['rows_per_second']:.1f} rows/s · read {size(report['bytes_read'])} · "
        f"wrote {size(report['bytes_written'])} in {report['shards']} shards · "
        f"peak memory {size(report['peak_memory_bytes'])}",
        "seconds by stage, summed over workers: "
        + ", ".join(f"{name} {seconds:.1f}" for name, seconds in report["seconds_by_stage"].items()),
    ]
    lines.insert(len(spaces) + 1, _classes(report["samples_by_class"]))
    if report["samples_unused"] or report["windows_empty"]:
        lines.append(
            f"left aside, since no feature reads what is in them: {report['samples_unused']} samples, "
            f"{report['windows_empty']} windows"
        )
    if report["failures_by_kind"]:
        kinds = ", ".join(f"{count} {kind}" for kind, count in report["failures_by_kind"].items())
        lines.append(f"failures: {kinds}")
    lines.extend(f"warning: {one}" for one in report["warnings"])
    return [features, "", *lines]


def _classes(counts: dict[str, int]) -> str:
    """``12 new, 3 changed...``: the classes that have any, and always what is unchanged."""
    told = [f"{counts[name]} {name}" for name in CLASSES if counts[name] or name in ("new", "changed", "deleted")]
    rows = f" ({counts['rows_adopted']} rows of a run that was interrupted are kept)" if counts["rows_adopted"] else ""
    outside = f"; {counts['forbidden']} name files that the source does not allow" if counts["forbidden"] else ""
    return f"samples: {', '.join(told)}{rows}{outside}"


def show_plan(prepared: Prepared, plan: Plan, console: Console) -> None:
    """What a run would do, for a terminal."""
    config = prepared.config
    table = _table("feature", "modality", "tokenizer", "encoder", "head", "emits", "space", "columns")
    for feature in prepared.features:
        table.add_row(
            feature.name,
            feature.modality,
            feature.config.tokenizer.kind,
            f"{feature.config.encoder.kind} ({feature.spec.model_type})",
            feature.config.head.kind,
            ", ".join(feature.config.emit),
            feature.space,
            ", ".join(field.name for field in feature.fields()),
        )
    files = ", ".join(f"{count} {role}" for role, count in plan.samples_by_role.items() if count)
    console.print(table)
    console.print()
    console.print(_classes(asdict(plan.difference.counts)))
    console.print(f"{plan.samples} samples to extract (files: {files or 'none'})")
    if plan.unused:
        console.print(f"{plan.unused} listed samples hold nothing that a feature reads")
    for one in plan.warnings:
        console.print(f"warning: {one}")
    length = config.window.length_s
    console.print(
        f"windows: {'the whole sample' if length is None else f'{length:g} s'}; output: {config.output.path}",
        soft_wrap=True,
    )


def _table(*texts: str, figures: tuple[str, ...] = ()) -> Table:
    """Columns of text, folded where the terminal is narrow, and of figures, which stay whole."""
    table = Table(box=None, pad_edge=False)
    for name in texts:
        table.add_column(name, overflow="fold")
    for name in figures:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def size(count: int) -> str:
    """Bytes for a person: 1.5 MB."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
