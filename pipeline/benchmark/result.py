"""Computes the result: the ideal speed, the efficiency, what limits a run and what to change."""

from __future__ import annotations

from typing import Any

from pipeline.benchmark.baseline import Bare
from pipeline.benchmark.end_to_end import KINDS, Wall
from pipeline.benchmark.stage import Pair
from pipeline.core.errors import TesseraError

_MUCH = 0.6
"""A stage that takes this part of a row's CPU limits the run."""


def of_bare(baseline: Bare, cores: float, gpus: float) -> dict[str, Any]:
    """Returns milliseconds per row of both loops, and the ideal rows/s of ``cores`` and ``gpus``."""
    decode, encode = baseline.decode_s / baseline.rows, baseline.encode_s / baseline.rows
    device = None if baseline.device_s is None else baseline.device_s / baseline.rows
    ideal = (decode + encode) / cores if device is None or not gpus else max(decode / cores, device / gpus)
    return {
        "rows": baseline.rows,
        "rows_per_sample": round(baseline.rows_per_sample, 4),
        "cells_failed": baseline.failed,
        "probe_ms": _ms(baseline.probe_s / baseline.rows),
        "decode_ms": _ms(decode),
        "encode_ms": _ms(encode),
        "encode_ms_by_feature": {name: _ms(s / baseline.rows) for name, s in baseline.encode_by_feature.items()},
        "device_ms": None if device is None else _ms(device),
        "ideal_rows_per_second": round(1 / max(ideal, 1e-9), 3),
        "binds": binds(decode, encode, device, cores, gpus),
    }


def of_all_cores(each: list[Bare]) -> dict[str, Any]:
    """Returns CPU milliseconds per row and rows/s in total if each core runs the loops.

    The difference to the ideal is due to caches and memory that the cores share.
    """
    rows = sum(baseline.rows for baseline in each)
    return {
        "all_cores_ms": _ms(sum(baseline.decode_s + baseline.encode_s for baseline in each) / rows),
        "all_cores_rows_per_second": round(
            sum(baseline.rows / (baseline.decode_s + baseline.encode_s) for baseline in each), 3
        ),
    }


def binds(decode_s: float, encode_s: float, device_s: float | None, cores: float, gpus: float) -> str:
    """Returns which stage limits a run, and what to change."""
    if device_s is not None and gpus:
        needed, there = decode_s / max(device_s, 1e-9), cores / gpus
        bound = "decode" if needed > there else "encode"
        return f"{bound}-bound: {needed:.1f} CPU cores per GPU needed, {there:.1f} there"
    share = decode_s / max(decode_s + encode_s, 1e-9)
    if share >= _MUCH:
        return f"decode-bound: decoding and tokenizing take {share:.0%} of a row's CPU: more cores"
    if share <= 1 - _MUCH:
        return f"encode-bound: encoding takes {1 - share:.0%} of a row's CPU: a GPU, or another dtype"
    return f"decoding takes {share:.0%} of a row's CPU, encoding the rest: more cores"


def of_walls(ideal_rows_per_second: float, few: Wall, many: Wall) -> dict[str, Any]:
    """Returns what one more row costs, from the difference of two runs over the same samples, and what is paid once.

    Figures are assumed to be linear in the rows. Wall seconds are those after the first row of a run, since start-up
    differs by seconds from run to run.

    Raises:
        TesseraError: the larger run did not take longer.
    """
    rows = many.rows - few.rows
    steady = many.seconds - many.first_row_s - (few.seconds - few.first_row_s)
    if rows <= 0 or steady <= 0:
        raise TesseraError(
            f"{many.rows} rows took {many.seconds:.1f} s and {few.rows} rows {few.seconds:.1f} s: the machine is busy "
            "with something else, or there are too few rows: give more with --rows"
        )
    wall = steady / rows

    def once(of_few: float, of_many: float) -> float:
        return of_few - few.rows * (of_many - of_few) / rows

    kinds = [kind for kind in KINDS if kind in few.cpu_s or kind in many.cpu_s]
    spent = {kind: (few.cpu_s.get(kind, 0.0), many.cpu_s.get(kind, 0.0)) for kind in kinds}
    written_s, written = many.write_s - few.write_s, many.bytes_written - few.bytes_written
    cpu = sum(b - a for a, b in spent.values())
    return {
        "rows": [few.rows, many.rows],
        "rows_with_failures": [few.failed, many.failed],
        "seconds": [round(few.seconds, 2), round(many.seconds, 2)],
        "rows_per_second": round(1 / wall, 3),
        "efficiency": round(1 / wall / ideal_rows_per_second, 4),
        "cores_busy": round(cpu / steady, 3),
        "gpu_busy": None if many.gpu_busy is None else round(many.gpu_busy, 3),
        "cpu_ms_per_row": {kind: _ms((b - a) / rows) for kind, (a, b) in spent.items()},
        "write": {
            "share_of_cpu": round(written_s / cpu, 4) if cpu > 0 else None,
            "mb_per_second": round(written / written_s / 1e6, 1) if written_s > 0 else None,
            "bytes_per_row": round(written / rows),
        },
        "object_store_bytes_per_row": round((many.bytes_moved - few.bytes_moved) / rows),
        "peak_memory_bytes": [few.peak_bytes, many.peak_bytes],
        "startup": {
            "once_s": round(few.seconds - few.rows * wall, 2),
            "first_row_s": [round(few.first_row_s, 2), round(many.first_row_s, 2)],
            "first_shard_s": None if few.first_shard_s is None else round(few.first_shard_s, 2),
            "cpu_s": {kind: round(once(a, b), 2) for kind, (a, b) in spent.items()},
        },
        "timeline": [[round(at, 2), by_kind] for at, by_kind in many.line],
    }


def of_reference(found: dict[str, dict[str, float] | str], cores: float, gpus: float = 0.0) -> dict[str, Any]:
    """Returns the rows/s of one reference loop per core, or per GPU.

    A row costs the sum of its features, each weighted by the share of rows that have it. Seconds are CPU seconds, or
    wall seconds with a GPU.
    """
    measured = {name: one for name, one in found.items() if not isinstance(one, str)}
    seconds = "wall_s" if gpus else "cpu_s"
    ms = {name: _ms(one["share"] * one[seconds] / one["rows"]) for name, one in measured.items()}
    return {
        "ms_by_feature": ms,
        "left_out": {name: one for name, one in found.items() if isinstance(one, str)},
        "rows_per_second": round((gpus or cores) * 1e3 / sum(ms.values()), 3) if ms else None,
    }


def of_stage(pair: Pair) -> dict[str, Any]:
    """Returns the rows/s of the encoding stage and of its models alone."""
    return {
        "rows": pair.rows,
        "stage_rows_per_second": round(pair.rows / pair.stage_s, 3),
        "model_rows_per_second": round(pair.rows / pair.model_s, 3) if pair.model_s else None,
        "ratio": round(pair.model_s / pair.stage_s, 4),
        "gpu_busy": None if pair.gpu_utilization is None else round(pair.gpu_utilization, 3),
    }


def _ms(seconds: float) -> float:
    return round(1e3 * seconds, 4)
