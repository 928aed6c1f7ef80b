"""A terminal shows what binds, how efficient a run was, and how it compares with the reference."""

from __future__ import annotations

import io
from typing import Any

import pytest

from pipeline.benchmark import show
from pipeline.core.terminal import Console
from tests.benchmark.measured import encoding, whole


def shown(result: dict[str, Any]) -> str:
    """On one line, however it was wrapped."""
    console = Console(width=100, file=io.StringIO())
    show.show(result, console)
    assert isinstance(console.file, io.StringIO)
    return " ".join(console.file.getvalue().split())


@pytest.mark.parametrize(
    "words",
    [
        "4 cores, no GPU; 50 samples drawn from the corpus",
        "over 100 rows: decode 60.00 ms a row, encode 20.00 ms (picture 15.0, caption 5.0)",
        "opening and cutting 5.00 ms",
        "ideal: 50.0 rows/s. decode-bound: decoding and tokenizing take 75% of a row's CPU: more cores",
        "reference: 160.0 rows/s (ms a row: picture 20.00, caption 5.00)",
        "reference without patches: no model",
        "runs of 100 and 300 rows: 30.0 and 36.0 s; at the margin 40.0 rows/s: efficiency 0.800, 0.25 x the reference",
        "driver 5.00 9.5",
        "decode 25.00 5.5",
        "all 50.00 18.0",
        "2.00 cores busy at the margin; writing 10.0% as long as all CPU, 20 MB/s, 100.0 kB a row",
        "20.0 kB a row through the object store",
        "27.5 s paid once, 21.0 s to the first row, 28.0 s to the first shard; peak memory 2.0 GB and 2.2 GB",
    ],
)
def test_it_tells_every_figure(words: str) -> None:
    assert words in shown(whole())


def test_it_tells_of_a_gpu() -> None:
    reported = whole(gpus=1.0, device="NVIDIA H100")
    reported["bare"] |= {"device_ms": 10.0, "binds": "decode-bound: 6.0 CPU cores per GPU needed, 4.0 there"}
    text = shown(reported)
    assert "4 cores, 1 x NVIDIA H100;" in text
    assert "(picture 15.0, caption 5.0), 10.00 ms of a GPU;" in text
    assert "decode-bound: 6.0 CPU cores per GPU needed, 4.0 there" in text


def test_it_tells_how_busy_a_gpu_was() -> None:
    reported = whole(gpus=1.0, device="NVIDIA H100")
    reported["run"]["gpu_busy"] = 0.875
    assert "2.00 cores busy at the margin, GPUs 88% of the larger run; writing" in shown(reported)
    assert "75.0% of them; the GPU" not in shown(encoding())
    assert "0.750 of them; the GPU computes 93% of the time" in shown(encoding(gpu_utilization=0.93))


def test_it_tells_of_all_cores_at_work() -> None:
    reported = whole()
    reported["bare"] |= {"all_cores_ms": 100.0, "all_cores_rows_per_second": 40.0}
    reported["run"]["of_all_cores"] = 1.0
    text = shown(reported)
    assert "the same with all cores at work: 100.00 ms a row, 40.0 rows/s in all" in text
    assert "efficiency 0.800, 1.000 of the loops on all cores, 0.25 x the reference" in text


def test_without_a_reference_it_tells_none() -> None:
    reported = whole()
    del reported["reference"], reported["run"]["against_reference"]
    text = shown(reported)
    assert "efficiency 0.800" in text
    assert "reference" not in text


def test_of_a_reference_without_a_loop_it_tells_why() -> None:
    reported = whole()
    reported["reference"] = {"ms_by_feature": {}, "left_out": {"patches": "no model"}, "rows_per_second": None}
    del reported["run"]["against_reference"]
    text = shown(reported)
    assert "reference without patches: no model" in text
    assert "x the reference" not in text


def test_a_run_without_a_shard_by_its_end() -> None:
    reported = whole()
    reported["run"]["startup"]["first_shard_s"] = None
    assert "21.0 s to the first row; peak memory" in shown(reported)


def test_a_run_whose_writing_has_no_figures() -> None:
    reported = whole()
    reported["run"]["write"] |= {"share_of_cpu": None, "mb_per_second": None}
    assert "at the margin; writing 100.0 kB a row; 20.0 kB a row through the object store" in shown(reported)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "encoding stage 150.0 rows/s, its models alone 200.0 rows/s: 0.750 of them"),
        ({"model_s": 0.0}, "encoding stage 150.0 rows/s, without a model"),
    ],
)
def test_the_stage_against_its_models(changes: dict[str, Any], words: str) -> None:
    text = shown(encoding(**changes))
    assert words in text
    assert "ideal" not in text


def test_one_of_a_kind_is_singular() -> None:
    measured = whole(cores=1.0)
    measured["samples_drawn"] = measured["bare"]["rows"] = 1
    text = shown(measured)
    assert "1 core, no GPU; 1 sample drawn from the corpus" in text
    assert "one thread, over 1 row: decode" in text


@pytest.mark.parametrize("width", [60, 80, 160])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    console = Console(width=width, file=io.StringIO())
    show.show(whole(), console)
    assert isinstance(console.file, io.StringIO)
    assert max(map(len, console.file.getvalue().splitlines())) <= width


def test_a_name_in_brackets_is_shown_as_it_is() -> None:
    reported = whole(gpus=2.0, device="[bold]H100[/b]")
    assert "2 x [bold]H100[/b];" in shown(reported)
