"""Ideal, efficiency, what a row costs and what is paid once, by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from pipeline.benchmark import result
from pipeline.benchmark.stage import Pair
from pipeline.core.errors import TesseraError
from tests.benchmark.measured import BARE, FEW, LOOPS, MANY, encoding, whole


def test_the_ideal_without_a_gpu_shares_all_work_among_the_cores() -> None:
    assert result.of_bare(BARE, cores=4, gpus=0) == {
        "rows": 100,
        "rows_per_sample": 2.0,
        "cells_failed": 3,
        "probe_ms": 5.0,
        "decode_ms": 60.0,
        "encode_ms": 20.0,
        "encode_ms_by_feature": {"picture": 15.0, "caption": 5.0},
        "device_ms": None,
        "ideal_rows_per_second": 50.0,  # 4 cores / 80 ms
        "binds": "decode-bound: decoding and tokenizing take 75% of a row's CPU: more cores",
    }


def test_all_cores_at_work() -> None:
    """80 ms a row on one core, 120 on another."""
    slow = replace(BARE, decode_s=9.0, encode_s=3.0)
    assert result.of_all_cores([BARE, slow]) == {"all_cores_ms": 100.0, "all_cores_rows_per_second": 20.833}


@pytest.mark.parametrize(
    ("cores", "gpus", "ideal", "binds"),
    [
        (4, 1, 66.667, "decode-bound: 6.0 CPU cores per GPU needed, 4.0 there"),  # 60 ms / 4 cores
        (16, 2, 200.0, "encode-bound: 6.0 CPU cores per GPU needed, 8.0 there"),  # 10 ms / 2 GPUs
        (6, 1, 100.0, "encode-bound: 6.0 CPU cores per GPU needed, 6.0 there"),
    ],
)
def test_the_ideal_beside_a_gpu_is_that_of_the_slower_side(cores: float, gpus: float, ideal: float, binds: str) -> None:
    reported = result.of_bare(replace(BARE, device_s=1.0), cores, gpus)
    assert (reported["device_ms"], reported["ideal_rows_per_second"], reported["binds"]) == (10.0, ideal, binds)


@pytest.mark.parametrize(
    ("decode_s", "encode_s", "binds"),
    [
        (6.0, 4.0, "decode-bound: decoding and tokenizing take 60% of a row's CPU: more cores"),
        (5.0, 5.0, "decoding takes 50% of a row's CPU, encoding the rest: more cores"),
        (4.0, 6.0, "encode-bound: encoding takes 60% of a row's CPU: a GPU, or another dtype"),
        (0.0, 1.0, "encode-bound: encoding takes 100% of a row's CPU: a GPU, or another dtype"),
        (1.0, 0.0, "decode-bound: decoding and tokenizing take 100% of a row's CPU: more cores"),
    ],
)
def test_what_binds_without_a_gpu(decode_s: float, encode_s: float, binds: str) -> None:
    assert result.binds(decode_s, encode_s, None, cores=4, gpus=0) == binds


def test_a_further_row_costs_the_difference_of_the_two_runs() -> None:
    reported = result.of_walls(50.0, FEW, MANY)
    for key, expected in {
        "rows": [100, 300],
        "rows_with_failures": [2, 6],
        "seconds": [30.0, 36.0],
        "rows_per_second": 40.0,  # 200 rows in 14 s - 9 s after the first row
        "efficiency": 0.8,
        "cores_busy": 2.0,  # 10 s of CPU in 5 s
        "cpu_ms_per_row": {"driver": 5.0, "probe": 5.0, "decode": 25.0, "encode": 10.0, "write": 5.0},
        "write": {"share_of_cpu": 0.1, "mb_per_second": 20.0, "bytes_per_row": 100_000},
        "object_store_bytes_per_row": 20_000,
        "peak_memory_bytes": [2_000_000_000, 2_200_000_000],
    }.items():
        assert reported[key] == expected, key
    assert reported["timeline"] == [[at, spent] for at, spent in MANY.line]


def test_what_is_paid_once_is_what_no_row_explains() -> None:
    assert result.of_walls(50.0, FEW, MANY)["startup"] == {
        "once_s": 27.5,  # 30 s without 100 rows of 25 ms
        "first_row_s": [21.0, 22.0],
        "first_shard_s": 28.0,
        "cpu_s": {"driver": 9.5, "probe": 0.5, "decode": 5.5, "encode": 2.0, "write": 0.5},
    }


def test_a_kind_that_only_one_run_saw_counts_as_nothing_in_the_other() -> None:
    few = replace(FEW, cpu_s={"driver": 10.0}, first_shard_s=None)
    reported = result.of_walls(50.0, few, replace(MANY, cpu_s={"driver": 11.0, "idle": 4.0}))
    assert reported["cpu_ms_per_row"] == {"driver": 5.0, "idle": 20.0}
    assert reported["cores_busy"] == 1.0
    assert reported["startup"]["first_shard_s"] is None


@pytest.mark.parametrize(
    "changes",
    [
        {"seconds": 31.0},  # 9 s after the first row, as the smaller run
        {"seconds": 25.0},
        {"first_row_s": 28.0},
        {"rows": 100},
    ],
)
def test_a_larger_run_that_took_no_longer_says_nothing(changes: dict[str, Any]) -> None:
    with pytest.raises(TesseraError, match=r"rows took .* s and 100 rows 30\.0 s: .*more with --rows$"):
        result.of_walls(50.0, FEW, replace(MANY, **changes))


def test_what_a_longer_start_costs_is_no_rows() -> None:
    reported = result.of_walls(50.0, FEW, replace(MANY, seconds=46.0, first_row_s=32.0))
    assert (reported["rows_per_second"], reported["startup"]["once_s"]) == (40.0, 27.5)


def test_writing_that_cannot_be_told_from_noise_has_no_figures() -> None:
    reported = result.of_walls(50.0, FEW, replace(MANY, write_s=0.4, cpu_s={"driver": 20.0}))
    assert reported["write"] == {"share_of_cpu": None, "mb_per_second": None, "bytes_per_row": 100_000}


def test_a_features_loop_counts_by_how_many_rows_have_it() -> None:
    assert result.of_reference(LOOPS, cores=4) == {
        "ms_by_feature": {"picture": 20.0, "caption": 5.0},
        "left_out": {"patches": "no model"},
        "rows_per_second": 160.0,  # 4 cores / 25 ms
    }


def test_a_gpus_loop_counts_by_the_clock() -> None:
    reported = result.of_reference(LOOPS, cores=4, gpus=2)
    assert reported["ms_by_feature"] == {"picture": 5.0, "caption": 1.0}
    assert reported["rows_per_second"] == 333.333  # 2 GPUs / 6 ms


def test_a_reference_of_nothing_has_no_speed() -> None:
    reported = result.of_reference({"patches": "no model"}, cores=4)
    assert (reported["ms_by_feature"], reported["rows_per_second"]) == ({}, None)


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        (Pair(600, 4.0, 3.0), (150.0, 200.0, 0.75)),
        (Pair(600, 4.0, 0.0), (150.0, None, 0.0)),
    ],
)
def test_the_stage_against_its_models(pair: Pair, expected: tuple[Any, ...]) -> None:
    reported = result.of_stage(pair)
    keys = ("stage_rows_per_second", "model_rows_per_second", "ratio")
    assert tuple(reported[key] for key in keys) == expected
    assert reported["rows"] == 600


@pytest.mark.parametrize("reported", [whole(), whole(gpus=1.0, device="H"), encoding()])
def test_it_survives_json(reported: dict[str, Any]) -> None:
    assert json.loads(json.dumps(reported, allow_nan=False)) == reported
