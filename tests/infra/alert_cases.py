"""For each alert: series at which it fires, with the words that it then has, and series at which it rests.

Times of a case are seconds since its start, which is 0 in Unix time. A series is in promtool's notation: `1+2x3` is
1, 3, 5, 7; `_` is no sample.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86400


@dataclass(frozen=True)
class Case:
    """One set of series.

    Args:
        every_s: seconds between two samples, and between two evaluations.
        at_s: when the alert is looked at.
        series: series without the label ``config="a"`` -> values.
        summary: of the alert that fires. None: it rests.
        labels: labels of the alert, besides the severity.
    """

    alert: str
    every_s: int
    at_s: int
    series: dict[str, str]
    summary: str | None = None
    labels: dict[str, str] = field(default_factory=lambda: {"config": "a"})


def _constant(value: float, every_s: int, until_s: int) -> str:
    return f"{value}x{until_s // every_s}"


def _nights(values: list[float], every_s: int = 1800) -> str:
    """Returns a series that has one value for each day."""
    return " ".join(f"{value:g}x{DAY_S // every_s - 1}" for value in values)


def _missed() -> list[Case]:
    name = "tessera_night_success_timestamp_seconds"
    late = {name: _constant(HOUR_S, 1800, 2 * DAY_S)}
    seen_once = {name: f"{HOUR_S} " + "_x400"}  # a driver on Ray, whose gauge is soon gone
    words = "a: no night has succeeded for 1d 5h 0m 0s"
    return [
        Case("TesseraNightMissed", 1800, 30 * HOUR_S, late, words),
        Case("TesseraNightMissed", 1800, 30 * HOUR_S, seen_once, words),
        Case("TesseraNightMissed", 1800, 26 * HOUR_S, late),
        Case("TesseraNightMissed", 1800, 8 * DAY_S + HOUR_S, seen_once, words.replace("1d 5h", "8d 0h")),
    ]


def _failed() -> list[Case]:
    def series(success: float | None, failure: float | None, code: int) -> dict[str, str]:
        end = max(one for one in (success, failure) if one is not None)
        found = {
            "tessera_night_exit_code": _constant(code, 1800, DAY_S),
            "tessera_night_end_timestamp_seconds": _constant(end, 1800, DAY_S),
        }
        for name, value in (("success", success), ("failure", failure)):
            if value is not None:
                found[f"tessera_night_{name}_timestamp_seconds"] = _constant(value, 1800, DAY_S)
        return found

    return [
        Case("TesseraNightFailed", 1800, 2 * HOUR_S, series(100, 200, 4), "a: the last night ended with code 4"),
        Case("TesseraNightFailed", 1800, 2 * HOUR_S, series(None, 200, 2), "a: the last night ended with code 2"),
        Case("TesseraNightFailed", 1800, 6 * HOUR_S, _two_drivers(4, 2), "a: the last night ended with code 2"),
        Case("TesseraNightFailed", 1800, 6 * HOUR_S, _two_drivers(1, 4), "a: the last night ended with code 4"),
        Case("TesseraNightFailed", 1800, 2 * HOUR_S, series(300, 200, 0)),
        Case("TesseraNightFailed", 1800, 2 * HOUR_S, series(300, None, 0)),
    ]


def _on_ray(name: str, values: list[float | None], every_s: int, length_s: int) -> dict[str, str]:
    """Returns a gauge of several drivers on Ray, one after the other: each is seen once. None: it does not set it."""
    steps = length_s // every_s
    return {
        f'{name}{{WorkerId="w{number}",instance="n"}}': f"_x{1 + number * steps} {value:g} _x200"
        for number, value in enumerate(values)
        if value is not None
    }


def _two_drivers(first: int, second: int) -> dict[str, str]:
    """Two tries of a night, two hours apart, that fail with these codes."""
    ends = [1800.0, 1800.0 + 2 * HOUR_S]
    return {
        **_on_ray("tessera_night_exit_code", [first, second], 1800, 2 * HOUR_S),
        **_on_ray("tessera_night_end_timestamp_seconds", [*ends], 1800, 2 * HOUR_S),
        **_on_ray("tessera_night_failure_timestamp_seconds", [*ends], 1800, 2 * HOUR_S),
    }


def _partial() -> list[Case]:
    ends = [day * DAY_S + HOUR_S for day in range(5)]
    success = "tessera_night_success_timestamp_seconds"
    complete = "tessera_night_complete_timestamp_seconds"
    at, words = 4 * DAY_S - HOUR_S, "a: every night of the last 3d 0h 0m 0s was cut short"
    return [
        Case("TesseraNightsPartial", 1800, at, {success: _nights(ends), complete: _nights([ends[0]] * 5)}, words),
        Case("TesseraNightsPartial", 1800, at, {success: _nights(ends)}, words),
        Case("TesseraNightsPartial", 1800, at, {success: _nights(ends), complete: _nights([ends[0]] * 3 + ends[3:])}),
    ]


def _lag() -> list[Case]:
    name, at = "tessera_lag_samples", 3 * DAY_S - HOUR_S
    words = "a: 300 samples are not in the dataset, more than after each night before"
    end = "tessera_night_end_timestamp_seconds"

    def series(lags: list[float]) -> dict[str, str]:
        return {name: _nights(lags), end: _nights([day * DAY_S for day in range(3)])}

    def tries(lags: list[float | None]) -> dict[str, str]:
        """Two tries each night, twelve hours apart, each by a driver of its own on Ray."""
        ends: list[float | None] = [1800.0 + number * DAY_S / 2 for number in range(6)]
        return {**_on_ray(name, lags, 1800, DAY_S // 2), **_on_ray(end, ends, 1800, DAY_S // 2)}

    return [
        Case("TesseraLagGrows", 1800, at, series([100, 200, 300]), words),
        Case("TesseraLagGrows", 1800, at, tries([900, 100, 500, 200, 100, 300]), words),
        Case("TesseraLagGrows", 1800, at, series([100, 200, 150])),
        Case("TesseraLagGrows", 1800, at, tries([100, 10, 200, 10, 300, 10])),
        Case("TesseraLagGrows", 1800, at, series([0, 0, 0])),
    ]


def _failures() -> list[Case]:
    def rows(failed: str) -> dict[str, str]:
        return {
            'tessera_rows_total{modality="image",outcome="written"}': "0+900x40",
            'tessera_rows_total{modality="image",outcome="failed"}': failed,
            'tessera_rows_total{modality="image",outcome="empty"}': "0+9000x40",
        }

    few = {
        'tessera_rows_total{modality="image",outcome="written"}': "0x40",
        'tessera_rows_total{modality="image",outcome="failed"}': "0 1x40",
    }
    at = 30 * MINUTE_S
    return [
        Case("TesseraFailureShareHigh", 60, at, rows("0+100x40"), "a: 10% of the rows fail"),
        Case("TesseraFailureShareHigh", 60, at, rows("0+20x40")),
        Case("TesseraFailureShareHigh", 60, 12 * MINUTE_S, few),
    ]


def _progress() -> list[Case]:
    at, words = 40 * MINUTE_S, "a: a run has finished no block for 25 minutes"
    stuck = {"tessera_run_active": "1x60", "tessera_blocks_total": "5+5x5 30x60"}
    return [
        Case("TesseraNoProgress", 60, at, stuck, words),
        Case("TesseraNoProgress", 60, at, {"tessera_run_active": "1x60"}, words),
        Case("TesseraNoProgress", 60, at, {"tessera_run_active": "1x60", "tessera_blocks_total": "0+1x60"}),
        Case("TesseraNoProgress", 60, at, {"tessera_run_active": "0x60", "tessera_blocks_total": "7x60"}),
    ]


def _devices() -> list[Case]:
    def series(busy: float, queue: float, active: int = 1) -> dict[str, str]:
        return {
            'tessera_device_busy_ratio{device="0",instance="m"}': f"{busy}x60",
            'tessera_device_busy_ratio{device="1",instance="m"}': f"{busy / 2}x60",
            'tessera_queue_blocks{phase="encode"}': f"{queue}x60",
            "tessera_run_active": f"{active}x60",
        }

    of_ray = {
        'ray_node_gpus_utilization{GpuIndex="0",instance="n"}': "20x60",
        'ray_data_num_external_inqueue_blocks{operator="MapBatches(encode)_3"}': "0x60",
        'ray_data_obj_store_mem_internal_inqueue_blocks{operator="MapBatches(encode)_3"}': "0x60",
        "tessera_run_active": "1x60",
    }
    words = "GPUs are busy for {} of the time, and no decoded block waits for them"
    at = 40 * MINUTE_S
    return [
        Case("TesseraDevicesStarve", 60, at, series(0.4, 0), words.format("30%"), {}),
        Case("TesseraDevicesStarve", 60, at, of_ray, words.format("20%"), {}),
        Case("TesseraDevicesStarve", 60, at, series(0.9, 0)),
        Case("TesseraDevicesStarve", 60, at, series(0.4, 2)),
        Case("TesseraDevicesStarve", 60, at, series(0.0, 0, active=0)),
    ]


def _queue() -> list[Case]:
    def series(values: str) -> dict[str, str]:
        return {'tessera_queue_blocks{phase="encode"}': values, 'tessera_queue_blocks{phase="probe"}': "900-1x100"}

    words, at = "180 blocks wait for encode, and there are more and more", 90 * MINUTE_S
    return [
        Case("TesseraQueueGrows", 60, at, series("0+2x100"), words, {"phase": "encode"}),
        Case("TesseraQueueGrows", 60, at, series("6x100")),
        Case("TesseraQueueGrows", 60, at, series("150x100")),
    ]


def _memory() -> list[Case]:
    def series(used: int, active: int = 1) -> dict[str, str]:
        return {
            'tessera_run_active{instance="m"}': f"{active}x20",
            'tessera_memory_bytes{instance="m"}': f"{used}x20",
            'tessera_memory_limit_bytes{instance="m"}': "100x20",
        }

    of_ray = {'ray_node_mem_used{instance="n"}': "96x20", 'ray_node_mem_total{instance="n"}': "100x20"}
    at, words = 15 * MINUTE_S, "{}: {}% of the memory is used"
    both = {"config": "a", "instance": "m"}
    return [
        Case("TesseraMemoryHigh", 60, at, series(95), words.format("m", 95), both),
        Case("TesseraMemoryHigh", 60, at, of_ray, words.format("n", 96), {"instance": "n"}),
        Case("TesseraMemoryHigh", 60, at, series(80)),
        Case("TesseraMemoryHigh", 60, at, series(95, active=0)),  # a text file, after the run
    ]


def _retries() -> list[Case]:
    def series(retries: str) -> dict[str, str]:
        return {"tessera_storage_requests_total": "0+100x40", "tessera_storage_retries_total": retries}

    at, words = 30 * MINUTE_S, "a: 25% of the requests repeat a failed one"
    return [
        Case("TesseraStorageRetriesHigh", 60, at, series("0+25x40"), words),
        Case("TesseraStorageRetriesHigh", 60, at, series("0+5x40")),
    ]


def _disk() -> list[Case]:
    def series(free: int, active: int = 1) -> dict[str, str]:
        own = 'instance="m",place="output"'
        sizes = {f"tessera_disk_free_bytes{{{own}}}": f"{free}x20", f"tessera_disk_size_bytes{{{own}}}": "100x20"}
        return {**sizes, 'tessera_run_active{instance="m"}': f"{active}x20"}

    of_ray = {'ray_node_disk_free{instance="n"}': "4x20", 'ray_node_disk_usage{instance="n"}': "96x20"}
    at, own = 15 * MINUTE_S, {"config": "a", "instance": "m", "place": "output"}
    return [
        Case("TesseraDiskNearlyFull", 60, at, series(5), "m output: 5% of the disk is free", own),
        Case("TesseraDiskNearlyFull", 60, at, of_ray, "n : 4% of the disk is free", {"instance": "n"}),
        Case("TesseraDiskNearlyFull", 60, at, series(30)),
        Case("TesseraDiskNearlyFull", 60, at, series(5, active=0)),  # a text file, after the run
    ]


def _target() -> list[Case]:
    own = {"job": "ray", "instance": "n"}
    return [
        Case("TesseraTargetDown", 60, 600, {'up{job="ray",instance="n"}': "0x20"}, "ray n does not answer", own),
        Case("TesseraTargetDown", 60, 600, {'up{job="ray",instance="n"}': "1x20"}),
        Case("TesseraTargetDown", 60, 600, {'up{job="tessera",instance="n"}': "0x20"}),
    ]


CASES = [
    *_missed(),
    *_failed(),
    *_partial(),
    *_lag(),
    *_failures(),
    *_progress(),
    *_devices(),
    *_queue(),
    *_memory(),
    *_retries(),
    *_disk(),
    *_target(),
]
