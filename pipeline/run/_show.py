"""The report and the plan of a run, printed on a terminal."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pipeline.config.bound import BoundConfig
from pipeline.core.terminal import Console, count, print_table, print_wrapped, size
from pipeline.engine.spec import PipelineSpec
from pipeline.run.planning import Plan

_CLASSES = ("new", "changed", "unchanged", "deleted", "retried", "forgotten")
"""Classes of samples in the difference of corpus and dataset, in the order in which they are printed."""


def show(report: dict[str, Any], console: Console) -> None:
    """Prints a report: a table of features, their spaces, and the figures of the run."""
    names_by_space: dict[str, list[str]] = {}
    rows = []
    for name, one in report["features"].items():
        emitted = ", ".join(one["emit"])
        dim = str(one["dim"] or "–")
        model = one["model_type"] or "–"
        rows.append([name, one["modality"], model, emitted, dim, str(one["written"]), str(one["failed"])])
        names_by_space.setdefault(one["space"], []).append(name)
    figures = ["dim", "written", "failed"]
    print_table(console, ["feature", "modality", "model", "emits", *figures], rows, figures)
    console.print()
    for space, names in names_by_space.items():
        print_wrapped(console, f"space {space}: {', '.join(names)}")
    for line in _lines(report):
        print_wrapped(console, line)


def _lines(report: dict[str, Any]) -> list[str]:
    """Returns the lines below the table: samples, rows and cells, times, failures, warnings."""
    cells = report["cells"]
    lines = [
        _classes(report["samples_by_class"]),
        f"{count(report['samples'], 'sample')} · {count(report['rows_planned'], 'row')}: "
        f"{report['rows_written']} written, {report['rows_failed']} failed · "
        f"{count(cells['planned'], 'cell')}: {cells['written']} written, {cells['failed']} failed",
        *_left(report),
        f"{report['seconds']:.1f} s, {report['startup_seconds'] or 0:.1f} of them to the first row · "
        f"{_speed(report['rows_per_second'])} rows/s · read {size(report['bytes_read'])} · "
        f"wrote {size(report['bytes_written'])} in {count(report['shards'], 'shard')} · "
        f"peak memory {size(report['peak_memory_bytes'])}",
        f"engine: {report['engine']['kind']} ({report['engine']['reason']})",
        "seconds by stage, summed over workers: "
        + ", ".join(f"{name} {seconds:.1f}" for name, seconds in report["seconds_by_stage"].items()),
    ]
    lines += [_node(one) for one in report.get("nodes", []) if len(report["nodes"]) > 1]
    if report.get("storage_requests"):
        requests = count(report["storage_requests"], "request")
        lines.append(f"{requests} for parts of remote files, {report['storage_retries']} of them again after an error")
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


def _left(report: dict[str, Any]) -> list[str]:
    """Returns a line about the samples that a run with a deadline did not begin."""
    if not (left := report.get("samples_left", 0)):
        return []
    how = "committed" if report["snapshot"] is not None else "kept, and is committed when the version is complete"
    return [f"partial: {count(left, 'sample is', 'samples are')} left for the next run; what is finished is {how}"]


def _node(node: dict[str, Any]) -> str:
    """Returns what a node of a cluster has and did."""
    gpus = f", {count(node['gpus'], 'GPU')}{''.join(f' {name}' for name in node['gpu_names'])}" if node["gpus"] else ""
    gone = "" if node["alive"] else " (lost)"
    return (
        f"node {node['name']}{gone}: {count(node['rows'], 'row')} · {count(node['processes'], 'worker')}, "
        f"peak memory {size(node['peak_memory_bytes'])} · {count(node['cpus'], 'CPU')}{gpus}"
    )


def _speed(rows_per_second: float | None) -> str:
    return "–" if rows_per_second is None else f"{rows_per_second:.1f}"


def _classes(counts: dict[str, int]) -> str:
    """Returns ``samples: 12 new, 3 changed, ...``: other classes only if they are not empty."""
    found = [f"{counts[name]} {name}" for name in _CLASSES if counts[name] or name in ("new", "changed", "deleted")]
    adopted_rows, outside = "", ""
    if adopted := counts["rows_adopted"]:
        adopted_rows = f" ({count(adopted, 'row of an interrupted run is', 'rows of an interrupted run are')} kept)"
    if forbidden := counts["forbidden"]:
        outside = f"; {count(forbidden, 'sample names', 'samples name')} files that the source does not allow"
    return f"samples: {', '.join(found)}{adopted_rows}{outside}"


def _left_out(counts: dict[str, int]) -> str:
    """Returns ``3 listed files are left out: 2 with '.' in their path, 1 ...``."""
    some = ", ".join(f"{number} {reason}" for reason, number in sorted(counts.items()))
    return f"{count(sum(counts.values()), 'listed file is', 'listed files are')} left out: {some}"


def show_plan(
    bound: BoundConfig, plan: Plan, spec: PipelineSpec, machine: dict[str, int] | None, console: Console
) -> None:
    """Prints what a run would do: features, samples, windows and the pipeline."""
    config = bound.config
    for feature in bound.features:
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
    print_wrapped(console, f"engine: {bound.engine} ({bound.engine_reason})")
    if machine is not None:
        gpus = f", {count(machine['gpus'], 'GPU')}" if machine["gpus"] else ""
        needed = size(spec.task_bytes + spec.model_bytes)
        print_wrapped(
            console,
            f"{count(machine['workers'], 'worker')} on {count(machine['cpus'], 'core')}{gpus} "
            f"and {size(machine['memory_bytes'])} of memory (about {needed} for each)",
        )
    console.print()
    _show_spec(spec, console)
    console.print(f"output: {config.output.path}", soft_wrap=True)


def _show_spec(spec: PipelineSpec, console: Console) -> None:
    """Prints the pipeline as a table with a row for each stage."""
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
