"""The report has the keys that its readers were promised, adds up by hand, and a narrow terminal loses no figure."""

from __future__ import annotations

import io
import json
import platform
import re
from typing import Any

import pytest

from pipeline import config as configs
from pipeline.config.bound import BoundConfig
from pipeline.config.features import bind
from pipeline.core import terminal
from pipeline.core.terminal import Console, json_text
from pipeline.dataset.diff.result import Counts, Difference
from pipeline.dataset.shards.write_result import Written
from pipeline.engine.spec import Execution, PipelineSpec
from pipeline.run import report
from pipeline.run.pipeline import pipeline_spec
from pipeline.run.planning import Plan

PROMISED = {
    *("samples", "rows_planned", "rows_written", "rows_failed", "cells", "decoded", "failures_by_kind"),
    *("seconds_by_stage", "rows_per_second", "startup_seconds", "bytes_read", "bytes_moved", "bytes_written"),
    *("peak_memory_bytes", "features", "versions"),
}
FURTHER = {
    *("run_id", "output", "version", "samples_by_class", "samples_unused", "windows_empty", "rows_with_failures"),
    *("status", "started", "ended", "host", "devices", "workers", "rows_retried", "rows_retried_with_failures"),
    *("failures_by_stage", "seconds", "shards", "warnings", "files_left_out", "engine"),
    *("storage_requests", "storage_retries", "nodes", "ray_job", "samples_left"),
}
NODES = [
    {
        "name": "one (10.0.0.2)",
        "alive": True,
        "cpus": 4.0,
        "gpus": 2.0,
        "gpu_names": ["H100"],
        "rows": 30,
        "processes": 3,
        "peak_memory_bytes": 2_000_000_000,
    },
    {
        "name": "two",
        "alive": False,
        "cpus": 0.0,
        "gpus": 0.0,
        "gpu_names": [],
        "rows": 9,
        "processes": 1,
        "peak_memory_bytes": 900_000_000,
    },
]
RAW = {"kind": "raw"}
FEATURES: dict[str, Any] = {
    "a_picture_with_a_long_name": {
        "modality": "image",
        "tokenizer": {"kind": "patch", "size": 32, "patch_size": 8},
        "encoder": RAW,
        "emit": ["tokens", "prefix_tokens"],
    },
    "sound": {
        "modality": "audio",
        "tokenizer": {"kind": "audio_frame", "sample_rate": 8000},
        "encoder": RAW,
        "emit": ["tokens"],
    },
}


@pytest.fixture
def prepared() -> BoundConfig:
    raw = {"source": {"kind": "files", "path": "in"}, "output": {"path": "out[b]/x"}, "features": FEATURES}
    config = configs.parse({**raw, "window": {"length_s": 2.5}})
    return BoundConfig(configs.here(config), bind(config))


@pytest.fixture
def plan() -> Plan:
    difference = Difference(counts=Counts(new=1_234_000, changed=560, retried=7, unchanged=9), work=1_234_567)
    left_out = {"with '.' in their path": 2, "with '/' at the end of their name": 1}
    return Plan(difference, samples_by_role={"image": 3, "audio": 4, "text": 0}, unused=8, left_out=left_out)


@pytest.fixture
def written() -> Written:
    """Two write tasks, added up as the driver adds them."""
    total = Written()
    total.add(
        Written(
            shards=[{"path": "a", "bytes": 1000}],
            rows=30,
            rows_written=25,
            rows_failed=5,
            rows_partial=2,
            cells_planned=40,
            cells_written={"a_picture_with_a_long_name": 20, "sound": 10},
            cells_failed={"sound": 10},
            failures_by_kind={"corrupt": 6, "empty": 4},
            failures_by_stage={"decode": 10},
            meters={
                "decode_s": 1.5,
                "encode_s": 4.0,
                "bytes_read": 5e6,
                "bytes_moved": 7e6,
                "decoded": 30.0,
                "requests": 9.0,
            },
            write_s=0.25,
        )
    )
    total.add(
        Written(
            shards=[{"path": "b", "bytes": 500}],
            failure_shards=[{"path": "c", "bytes": 7}],
            rows=12,
            rows_written=9,
            rows_failed=1,
            rows_empty=2,
            cells_planned=10,
            cells_written={"a_picture_with_a_long_name": 9},
            cells_failed={"sound": 1},
            failures_by_kind={"corrupt": 1},
            failures_by_stage={"probe": 1},
            meters={"decode_s": 0.5, "probe_s": 0.125, "requests": 3.0, "retries": 2.0},
            write_s=0.75,
        )
    )
    return total


@pytest.fixture
def built(prepared: BoundConfig, plan: Plan, written: Written) -> dict[str, Any]:
    return report.build(
        prepared,
        plan,
        Execution(
            written,
            first_row_at=1_767_225_602.0,
            workers={"processes": 4, "peak_memory_bytes": 2_900_000_000},
            devices={"nodes": 1, "cpus": 2.0, "gpus": 0.0},
            nodes=NODES,
            ray_job="01000000",
        ),
        run_id="20260101T000000-abcd",
        started=1_767_225_600.0,
        ended=1_767_225_612.0004,
        peak_memory_bytes=3_200_000_000,
        versions={"python": "3.11.9", "ray": "2.60.0"},
    )


def test_the_keys_are_those_promised(built: dict[str, Any]) -> None:
    assert set(built) == PROMISED | FURTHER
    assert set(built["cells"]) == {"planned", "written", "failed"}
    assert set(built["seconds_by_stage"]) == {"probe", "decode", "tokenize", "encode", "write"}
    assert set(built["features"]) == set(FEATURES)


def test_it_survives_json(built: dict[str, Any]) -> None:
    assert json.loads(json.dumps(built, allow_nan=False)) == built


def test_the_figures_by_hand(built: dict[str, Any]) -> None:
    for key, expected in {
        "samples": 1_234_567,
        "samples_unused": 8,
        "files_left_out": {"with '.' in their path": 2, "with '/' at the end of their name": 1},
        "rows_planned": 40,  # 42 windows, of which two hold nothing that a feature reads
        "rows_written": 34,
        "rows_failed": 6,
        "rows_with_failures": 8,
        "windows_empty": 2,
        "cells": {"planned": 50, "written": 39, "failed": 11},
        "decoded": 30,
        "failures_by_kind": {"corrupt": 7, "empty": 4},
        "failures_by_stage": {"decode": 10, "probe": 1},
        "seconds": 12.0,
        "seconds_by_stage": {"probe": 0.125, "decode": 2.0, "tokenize": 0.0, "encode": 4.0, "write": 1.0},
        "rows_per_second": 4.0,
        "startup_seconds": 2.0,
        "status": "complete",
        "started": "2026-01-01T00:00:00.000+00:00",
        "ended": "2026-01-01T00:00:12.000+00:00",
        "host": platform.node(),
        "devices": {"nodes": 1, "cpus": 2.0, "gpus": 0.0},
        "workers": {"processes": 4, "peak_memory_bytes": 2_900_000_000},
        "bytes_read": 5_000_000,
        "storage_requests": 12,
        "storage_retries": 2,
        "bytes_moved": 7_000_000,
        "bytes_written": 1507,
        "shards": 2,
        "peak_memory_bytes": 3_200_000_000,
        "versions": {"python": "3.11.9", "ray": "2.60.0"},
    }.items():
        assert built[key] == expected, key
    cells = built["cells"]
    assert built["rows_planned"] == built["rows_written"] + built["rows_failed"]
    assert cells["planned"] == cells["written"] + cells["failed"]
    sound = built["features"]["sound"]
    assert (sound["written"], sound["failed"], sound["space"], sound["token_dim"]) == (10, 11, "raw", 160)


def test_a_run_without_a_row(prepared: BoundConfig, plan: Plan) -> None:
    empty = report.build(
        prepared,
        plan,
        Execution(),
        run_id="r",
        started=5.0,
        ended=5.0,
        peak_memory_bytes=0,
        versions={},
    )
    assert set(empty) == PROMISED | FURTHER
    assert (empty["rows_per_second"], empty["startup_seconds"], empty["bytes_written"]) == (None, None, 0)
    json.dumps(empty, allow_nan=False)
    assert "1234567 samples · 0 rows" in shown(empty, 100)


def test_rows_a_second_of_less_than_a_second_are_not_told(prepared: BoundConfig, plan: Plan, written: Written) -> None:
    """70 rows in a millisecond after the first were 70,000 rows/s."""
    common: dict[str, Any] = {"run_id": "r", "started": 10.0, "peak_memory_bytes": 0, "versions": {}}
    done = Execution(written, first_row_at=15.0)
    for steady_s, expected in ((0.001, None), (0.99, None), (2.0, 20.0)):
        built = report.build(prepared, plan, done, ended=15.0 + steady_s, **common)
        assert built["rows_per_second"] == expected
    assert "– rows/s" in shown(report.build(prepared, plan, done, ended=15.5, **common), 100)


def test_what_each_node_did_is_printed(built: dict[str, Any]) -> None:
    printed = shown(built, 200)
    assert "node one (10.0.0.2): 30 rows · 3 workers, peak memory 2.0 GB · 4 CPUs, 2 GPUs H100" in printed
    assert "node two (lost): 9 rows · 1 worker, peak memory 900.0 MB" in printed


def test_of_a_run_that_broke_off(prepared: BoundConfig) -> None:
    built = report.of_broken_run(prepared, "r", 1_767_225_600.0, 1_767_225_602.5, "StorageError: full")
    assert (built["status"], built["cause"], built["seconds"]) == ("broken off", "StorageError: full", 2.5)
    assert built["versions"]["python"]
    json.dumps(built, allow_nan=False)


def shown(built: dict[str, Any], width: int) -> str:
    console = Console(width=width, file=io.StringIO())
    report.show(built, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [160, 100, 80, 60])
def test_a_terminal_shows_every_figure_whole(built: dict[str, Any], width: int) -> None:
    for one in built["features"].values():
        one.update(written=123_456_789, failed=987_654_321, space="embedding_gemma2:0123456789ab", dim=1024)
    text = shown(built, width)
    assert all(len(line) <= width for line in text.splitlines())
    assert "…" not in text
    assert text.count("a_picture_with_a_long_name") == 2  # of its line, of its space
    words = re.findall(r"[^\s,:]+", text)
    for figure in ("1234567", "40", "34", "6", "50", "39", "11", "12.0", "2.0", "4.0", "1024", "0123456789ab"):
        assert figure in words, figure
    assert words.count("123456789") == words.count("987654321") == 2
    flat = " ".join(text.split())
    for reported in (
        "40 rows: 34 written, 6 failed",
        "50 cells: 39 written, 11 failed",
        "read 5.0 MB",
        "wrote 1.5 kB in 2 shards",
        "peak memory 3.2 GB",
        "probe 0.1, decode 2.0, tokenize 0.0, encode 4.0, write 1.0",
        "failures: 7 corrupt, 4 empty",
        "samples: 1234000 new, 560 changed, 9 unchanged, 0 deleted, 7 retried",
        "8 samples, 2 windows",
        "3 listed files are left out: 2 with '.' in their path, 1 with '/' at the end of their name",
        "space embedding_gemma2:0123456789ab: a_picture_with_a_long_name, sound",
    ):
        assert reported in flat, reported


def test_one_of_a_kind_is_singular(built: dict[str, Any], prepared: BoundConfig) -> None:
    built.update(samples=1, rows_planned=1, shards=1, samples_unused=1, windows_empty=1)
    built["cells"]["planned"] = 1
    built["samples_by_class"].update(rows_adopted=1, forbidden=1)
    text = shown(built, 200)
    for words in (
        "1 sample · 1 row: ",
        " · 1 cell: ",
        " in 1 shard · ",
        ": 1 sample, 1 window\n",
        "(1 row of an interrupted run is kept); 1 sample names files that the source does not allow\n",
    ):
        assert words in text, words
    difference = Difference(counts=Counts(new=1), work=1)
    text = planned(prepared, Plan(difference, unused=1, left_out={"too long": 1}), 200)
    assert "\n1 sample to extract (files: none)\n" in text
    assert "\n1 listed sample holds nothing that a feature reads\n" in text
    assert "\n1 listed file is left out: 1 too long\n" in text


def test_the_plan_as_plain_values(prepared: BoundConfig, plan: Plan) -> None:
    plan.left_out, plan.warnings = {"too long": 2}, ["careful"]
    found = json.loads(json_text(report.plan_document(prepared, plan, _spec(prepared), MACHINE)))
    assert list(found["features"]) == list(FEATURES)
    picture = found["features"]["a_picture_with_a_long_name"]
    assert (picture["modality"], picture["encoder"], picture["space"], picture["token_dim"]) == (
        *("image", "raw", "raw"),
        192,
    )
    assert list(picture["columns"]) == [field.name for field in prepared.features[0].fields()]
    assert found["samples_by_class"]["new"] == 1_234_000
    for key, expected in {
        "samples": 1_234_567,
        "files_by_role": {"image": 3, "audio": 4},
        "samples_unused": 8,
        "files_left_out": {"too long": 2},
        "warnings": ["careful"],
        "output": prepared.config.output.path,
        "machine": MACHINE,
    }.items():
        assert found[key] == expected
    assert found["windows"]["length_s"] == 2.5
    assert [row["stage"] for row in found["pipeline"]] == ["read", "probe", "decode", "encode"]
    assert found["pipeline"][2]["sandbox"]["memory_bytes"] > 0


MACHINE = {"cpus": 8, "gpus": 1, "memory_bytes": 16 * 10**9, "workers": 3}


def _spec(prepared: BoundConfig) -> PipelineSpec:
    return pipeline_spec(prepared, None, "r", "out", on_gpu=False)


def planned(prepared: BoundConfig, plan: Plan, width: int) -> str:
    console = Console(width=width, file=io.StringIO())
    report.show_plan(prepared, plan, _spec(prepared), MACHINE, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 160])
def test_the_plan_names_every_column(prepared: BoundConfig, plan: Plan, width: int) -> None:
    text = planned(prepared, plan, width)
    for feature in prepared.features:
        assert f"feature {feature.name}\n" in text
        for field in feature.fields():
            assert field.name in re.split(r"[\s,]+", text)
    assert all(len(line) <= width for line in text.splitlines() if not line.startswith("output: "))
    text = text.partition("\n\n")[2].replace("\n  ", " ")  # sentences, unwrapped
    assert "1234567 samples to extract (files: 3 image, 4 audio)\n" in text
    assert "8 listed samples hold nothing that a feature reads\n" in text
    assert "3 listed files are left out: 2 with '.' in their path, 1 with '/' at the end of their name\n" in text
    assert "samples: 1234000 new, 560 changed, 9 unchanged, 0 deleted, 7 retried\n" in text
    assert "\nwindows: 2.5 s\n" in text
    assert "\n3 workers on 8 cores, 1 GPU and 16.0 GB of memory (about 1.1 GB for each)\n" in text
    assert text.endswith(f"\noutput: {prepared.config.output.path}\n")


def test_nothing_is_said_of_files_where_none_is_left_out(prepared: BoundConfig, plan: Plan) -> None:
    plan.left_out = {}
    console = Console(width=200, file=io.StringIO())
    report.show_plan(prepared, plan, _spec(prepared), None, console)
    assert isinstance(console.file, io.StringIO)
    assert "left out" not in console.file.getvalue()
    plan.left_out = {"with '.' in their path": 1}
    report.show_plan(prepared, plan, _spec(prepared), None, console)
    assert "1 listed file is left out: 1 with '.' in their path\n" in console.file.getvalue()


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2_000_000, "2.0 MB"), (3.2e9, "3.2 GB"), (5e15, "5000.0 TB")],
)
def test_sizes(count: int, expected: str) -> None:
    assert terminal.size(count) == expected
