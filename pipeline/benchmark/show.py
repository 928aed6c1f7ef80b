"""Prints the result of a benchmark on a terminal."""

from __future__ import annotations

from typing import Any

from pipeline.core.terminal import Console, count, print_table, print_wrapped, size


def show(result: dict[str, Any], console: Console) -> None:
    """Prints a result of `benchmark.measure`."""
    machine = result["machine"]
    gpus = f", {machine['gpus']:g} x {machine['device']}" if machine["gpus"] else ", no GPU"
    drawn = count(result["samples_drawn"], "sample")
    print_wrapped(console, f"{count(float(machine['cores']), 'core')}{gpus}; {drawn} drawn from the corpus")
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
    print_wrapped(console, f"encoding stage {stage['stage_rows_per_second']:.1f} rows/s{versus}{busy}")


def _bare(bare: dict[str, Any], console: Console) -> None:
    each = ", ".join(f"{name} {ms:.1f}" for name, ms in bare["encode_ms_by_feature"].items())
    device = "" if bare["device_ms"] is None else f", {bare['device_ms']:.2f} ms of a GPU"
    console.print()
    print_wrapped(
        console,
        f"bare loops, one thread, over {count(bare['rows'], 'row')}: decode {bare['decode_ms']:.2f} ms a row, encode "
        f"{bare['encode_ms']:.2f} ms ({each}){device}; opening and cutting {bare['probe_ms']:.2f} ms",
    )
    print_wrapped(console, f"ideal: {bare['ideal_rows_per_second']:.1f} rows/s. {bare['binds']}")
    if rate := bare.get("all_cores_rows_per_second"):
        print_wrapped(
            console, f"the same with all cores at work: {bare['all_cores_ms']:.2f} ms a row, {rate:.1f} rows/s in all"
        )


def _reference(reference: dict[str, Any], console: Console) -> None:
    if reference["rows_per_second"] is not None:
        each = ", ".join(f"{name} {ms:.2f}" for name, ms in reference["ms_by_feature"].items())
        print_wrapped(console, f"reference: {reference['rows_per_second']:.1f} rows/s (ms a row: {each})")
    for name, why in reference["left_out"].items():
        print_wrapped(console, f"reference without {name}: {why}")


def _run(run: dict[str, Any], reference: float | None, console: Console) -> None:
    few, many = run["rows"]
    versus = f", {run['against_reference']:.2f} x the reference" if reference else ""
    loops = f", {run['of_all_cores']:.3f} of the loops on all cores" if "of_all_cores" in run else ""
    console.print()
    print_wrapped(
        console,
        f"runs of {few} and {many} rows: {run['seconds'][0]:.1f} and {run['seconds'][1]:.1f} s; at the margin "
        f"{run['rows_per_second']:.1f} rows/s: efficiency {run['efficiency']:.3f}{loops}{versus}",
    )
    once = run["startup"]["cpu_s"]
    rows = [[kind, f"{ms:.2f}", f"{once[kind]:.1f}"] for kind, ms in run["cpu_ms_per_row"].items()]
    rows.append(["all", f"{sum(run['cpu_ms_per_row'].values()):.2f}", f"{sum(once.values()):.1f}"])
    print_table(console, ["CPU", "ms a row", "s once"], rows, ["ms a row", "s once"])
    write, startup = run["write"], run["startup"]
    shard = "" if startup["first_shard_s"] is None else f", {startup['first_shard_s']:.1f} s to the first shard"
    share = "" if write["share_of_cpu"] is None else f"{write['share_of_cpu']:.1%} as long as all CPU, "
    speed = "" if write["mb_per_second"] is None else f"{write['mb_per_second']:.0f} MB/s, "
    gpus = "" if run["gpu_busy"] is None else f", GPUs {run['gpu_busy']:.0%} of the larger run"
    print_wrapped(
        console,
        f"{run['cores_busy']:.2f} cores busy at the margin{gpus}; writing {share}{speed}{size(write['bytes_per_row'])}"
        f" a row; {size(run['object_store_bytes_per_row'])} a row through the object store",
    )
    print_wrapped(
        console,
        f"start-up: {startup['once_s']:.1f} s paid once, {startup['first_row_s'][0]:.1f} s to the first row{shard}; "
        f"peak memory {size(run['peak_memory_bytes'][0])} and {size(run['peak_memory_bytes'][1])}",
    )
