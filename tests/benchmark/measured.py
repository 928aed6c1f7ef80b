"""Hand-made measurements whose every figure can be worked out in the head, and features of the demo checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.benchmark import result
from pipeline.benchmark.baseline import Bare
from pipeline.benchmark.end_to_end import Wall
from pipeline.benchmark.stage import Pair

BARE = Bare(
    rows=100,
    rows_per_sample=2.0,
    probe_s=0.5,
    decode_s=6.0,
    encode_s=2.0,
    encode_by_feature={"picture": 1.5, "caption": 0.5},
    failed=3,
)
FEW = Wall(
    rows=100,
    seconds=30.0,
    first_row_s=21.0,
    first_shard_s=28.0,
    peak_bytes=2_000_000_000,
    bytes_moved=1_000_000,
    write_s=0.5,
    bytes_written=3_000_000,
    cpu_s={"driver": 10.0, "probe": 1.0, "decode": 8.0, "encode": 3.0, "write": 1.0},
    line=[(0.0, {}), (30.0, {"driver": 10.0})],
    failed=2,
)
MANY = Wall(
    rows=300,
    seconds=36.0,
    first_row_s=22.0,
    first_shard_s=29.0,
    peak_bytes=2_200_000_000,
    bytes_moved=5_000_000,
    write_s=1.5,
    bytes_written=23_000_000,
    cpu_s={"driver": 11.0, "probe": 2.0, "decode": 13.0, "encode": 5.0, "write": 2.0},
    line=[
        (0.0, {}),
        (1.0, {"driver": 1.0}),
        (2.0, {"driver": 1.5, "decode": 1.0}),
        (3.0, {"driver": 1.5, "decode": 3}),
    ],
    failed=6,
)
"""200 rows, 5 s after the first row and 10 s of CPU more than ``FEW``."""
LOOPS: dict[str, dict[str, float] | str] = {
    "picture": {"share": 0.5, "rows": 200, "cpu_s": 8.0, "wall_s": 2.0},
    "caption": {"share": 1.0, "rows": 1000, "cpu_s": 5.0, "wall_s": 1.0},
    "patches": "no model",
}


def whole(**machine: Any) -> dict[str, Any]:
    """What `benchmark.measure` would say of these, on 4 cores."""
    machine = {"cores": 4.0, "gpus": 0.0, "device": None, **machine}
    baseline = result.of_bare(BARE, machine["cores"], machine["gpus"])
    run = result.of_walls(baseline["ideal_rows_per_second"], FEW, MANY)
    reference = result.of_reference(LOOPS, machine["cores"], machine["gpus"])
    ratio = round(run["rows_per_second"] / reference["rows_per_second"], 3)
    reported = {"machine": machine, "samples_drawn": 50, "bare": baseline, "reference": reference}
    return {**reported, "run": {**run, "against_reference": ratio}}


def encoding(**changes: Any) -> dict[str, Any]:
    """The same of `benchmark.measure` with ``only="encode"``."""
    machine = {"cores": 4.0, "gpus": 0.0, "device": None}
    pair = Pair(**{"rows": 600, "stage_s": 4.0, "model_s": 3.0, **changes})
    return {"machine": machine, "samples_drawn": 50, "stage": result.of_stage(pair)}


def picture(models: Path, kind: str = "vit", **options: Any) -> dict[str, Any]:
    return _feature("image", {"kind": "patch"}, models, kind, **options)


def caption(models: Path, kind: str = "clip", **options: Any) -> dict[str, Any]:
    return _feature("text", {"kind": "text"}, models, kind, **options)


def sound(models: Path, kind: str = "ast", **options: Any) -> dict[str, Any]:
    return _feature("audio", {"kind": "audio_frame"}, models, kind, **options)


def _feature(modality: str, tokenizer: dict[str, Any], models: Path, kind: str, **options: Any) -> dict[str, Any]:
    encoder = {"kind": kind, "checkpoint": str(models / kind), "device": "cpu", **options}
    return {"modality": modality, "tokenizer": tokenizer, "encoder": encoder}
