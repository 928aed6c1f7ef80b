"""A benchmark's result for a terminal."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from pipeline.report import size
from pipeline.terminal import Console


def show(result: dict[str, Any], console: Console) -> None:
    machine = result["machine"]
    gpus = f", {machine['gpus']:g} x {machine['device']}" if machine["gpus"] else ", no GPU"
    console.print(f"{machine['cores']:g} cores{gpus}; {result['samples_drawn']} samples drawn from the corpus")
    if "stage" in result:
        _stage(result["stage"], console)
        return
    _bare(result["bare"], console)
    if "reference" in result:
        _reference(result["reference"], console)
    _run(result["run"], result.get("reference", {}).get("rows_per_second"), console)


def _stage(stage: dict[str, Any], console: Console) -> None:
    models = stage["model_rows_per_second"]
    versus = f", its models alone {models:.1f} rows/s: {stage['ratio']:.3f} of them" if models else ", without a model"
    busy = "" if stage["gpu_busy"] is None else f"; the GPU computes {stage['gpu_busy']:.0%} of the time"
    console.print(f"encoding stage {stage['stage_rows_per_second']:.1f} rows/s{versus}{busy}")


def _bare(bare: dict[str, Any], console: Console) -> None:
    each = ", ".join(f"{name} {ms:.1f}" for name, ms in bare["encode_ms_by_feature"].items())
    device = "" if bare["device_ms"] is None else f", {bare['device_ms']:.2f} ms of a GPU"
    console.print()
    console.print(
        f"bare loops, one thread, over {bare['rows']} rows: decode {bare['decode_ms']:.2f} ms a row, encode "
        f"{bare['encode_ms']:.2f} ms ({each}){device}; opening and cutting {bare['probe_ms']:.2f} ms"
    )
    console.print(f"ideal: {bare['ideal_rows_per_second']:.1f} rows/s. {bare['binds']}")
    if rate := bare.get("all_cores_rows_per_second"):
        console.print(f"the same with all cores at work: {bare['all_cores_ms']:.2f} ms a row, {rate:.1f} rows/s in all")


def _reference(reference: dict[str, Any], console: Console) -> None:
    if reference["rows_per_second"] is not None:
        each = ", ".join(f"{name} {ms:.2f}" for name, ms in reference["ms_by_feature"].items())
        console.print(f"reference: {reference['rows_per_second']:.1f} rows/s (ms a row: {each})")
    for name, why in reference["left_out"].items():
        console.print(f"reference without {name}: {why}")


def _run(run: dict[str, Any], reference: float | None, console: Console) -> None:
    few, many = run["rows"]
    versus = f", {run['against_reference']:.2f} x the reference" if reference else ""
    loops = f", {run['of_all_cores']:.3f} of the loops on all cores" if "of_all_cores" in run else ""
    console.print()
    console.print(
        f"runs of {few} and {many} rows: {run['seconds'][0]:.1f} and {run['seconds'][1]:.1f} s; at the margin "
        f"{run['rows_per_second']:.1f} rows/s: efficiency {run['efficiency']:.3f}{loops}{versus}"
    )
    table = Table(box=None, pad_edge=False)
    for name in ("CPU", "ms a row", "s once"):
        table.add_column(name, justify="left" if name == "CPU" else "right")
    once = run["startup"]["cpu_s"]
    for kind, ms in run["cpu_ms_per_row"].items():
        table.add_row(kind, f"{ms:.2f}", f"{once[kind]:.1f}")
    table.add_row("all", f"{sum(run['cpu_ms_per_row'].values()):.2f}", f"{sum(once.values()):.1f}")
    console.print(table)
    write, startup = run["write"], run["startup"]
    shard = "" if startup["first_shard_s"] is None else f", {startup['first_shard_s']:.1f} s to the first shard"
    share = "" if write["share_of_cpu"] is None else f"{write['share_of_cpu']:.1%} as long as all CPU, "
    speed = "" if write["mb_per_second"] is None else f"{write['mb_per_second']:.0f} MB/s, "
    gpus = "" if run["gpu_busy"] is None else f", GPUs {run['gpu_busy']:.0%} of the larger run"
    console.print(
        f"{run['cores_busy']:.2f} cores busy at the margin{gpus}; writing {share}{speed}{size(write['bytes_per_row'])}"
        f" a row; {size(run['object_store_bytes_per_row'])} a row through the object store"
    )
    console.print(
        f"start-up: {startup['once_s']:.1f} s paid once, {startup['first_row_s'][0]:.1f} s to the first row{shard}; "
        f"peak memory {size(run['peak_memory_bytes'][0])} and {size(run['peak_memory_bytes'][1])}"
    )
