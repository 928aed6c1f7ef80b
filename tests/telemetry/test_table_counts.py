"""What a table adds to the metrics, against the writer of shards, which counts row by row."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.core.schema import METERS, UNIT
from pipeline.dataset.output import OutputConfig
from pipeline.dataset.shards.writer import ShardWriter
from pipeline.stages.rows import ROWS, Failure, failure_column, put
from pipeline.telemetry import metrics
from pipeline.telemetry.table_counts import of_table

FEATURES = ("f", "g")
COLUMNS = {name: [f"{name}_embedding"] for name in FEATURES}
FIELDS = [pa.field(f"{name}_embedding", pa.list_(pa.float32())) for name in FEATURES]


def random_table(seed: int, count: int = 60) -> pa.Table:
    """Rows whose features are written, failed, or not of the row's media; the last one is no row of the dataset."""
    random = np.random.default_rng(seed)
    states = random.choice(["written", "failed", "absent"], (count, 2))
    states[-1] = "absent"
    failures = [
        [
            Failure(name, None, random.choice(["decode", "encode"]), random.choice(["corrupt", "io", "nan"]), "m")
            for name, state in zip(FEATURES, row, strict=True)
            if state == "failed"
        ]
        for row in states
    ]
    own = {
        "sample_id": [f"s{i}" for i in range(count)],
        "window": [0] * (count - 1) + [-1],
        "source_version": ["v"] * count,
        "final": random.random(count) < 0.7,
        "promised": [1] * (count - 1) + [0],
        "replaces": [False] * count,
        "cells": (states != "absent").sum(axis=1),
        "video_uri": np.where(random.random(count) < 0.3, "v", None),
        "audio_uri": np.where(random.random(count) < 0.3, "a", None),
        "image_uri": np.where(random.random(count) < 0.3, "i", None),
        "inline_text": np.where(random.random(count) < 0.3, "t", None),
        **{f"meter_{name}": random.random(count) for name in METERS},
    }
    columns = [pa.array(own[f.name], f.type) if f.name in own else pa.nulls(count, f.type) for f in ROWS]
    table = put(pa.table(columns, ROWS.names), "failures", failure_column(failures))
    table = put(table, UNIT, pa.array(["00000:0"] * count))
    for number, field in enumerate(FIELDS):
        values = [[1.0] if state == "written" else None for state in states[:, number]]
        table = put(table, field.name, pa.array(values, field.type))
    return table


@pytest.mark.parametrize("seed", range(8))
def test_the_sums_are_those_of_the_writer(tmp_path: Path, seed: int) -> None:
    table = random_table(seed)
    if seed % 2:  # as several chunks
        table = pa.concat_tables([table.slice(0, 17), table.slice(17)])
    schema = pa.schema([ROWS.field("sample_id"), *FIELDS])
    writer = ShardWriter(str(tmp_path), "n", "r", COLUMNS, schema, OutputConfig(path=str(tmp_path)))
    writer.add(table)
    expected = writer.result
    found, outcomes, kinds, stages = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for metric, labels, value in of_table(table):
        found[metric.name] += value
        if metric is metrics.ROWS:
            outcomes[labels[1]] += value
        if metric is metrics.FAILURES:
            kinds[labels[0]] += value
            stages[labels[1]] += value
    assert outcomes["written"] + outcomes["partial"] == expected.rows_written > 0
    assert outcomes["partial"] == expected.rows_partial > 0
    assert outcomes["failed"] == expected.rows_failed > 0
    assert outcomes["empty"] == expected.rows_empty > 0
    assert kinds == expected.failures_by_kind
    assert stages == expected.failures_by_stage
    assert found["tessera_samples_total"] == expected.samples
    assert (found["tessera_blocks_total"], found["tessera_block_rows_total"]) == (1, 60)
    for meter, metric in metrics.METERS.items():
        assert found[metric.name] == pytest.approx(expected.meters[meter], rel=1e-12)
    writer.abort()


def test_a_row_counts_for_its_largest_medium() -> None:
    table = random_table(3)
    by_hand = Counter[str]()
    for row in table.to_pylist():
        if row["window"] >= 0:
            has = [one for one in ("video", "audio", "image") if row[f"{one}_uri"]] + ["text"] * bool(
                row["inline_text"]
            )
            by_hand[has[0] if has else "none"] += 1
    found = Counter[str]()
    for metric, labels, value in of_table(table):
        if metric is metrics.ROWS:
            found[labels[0]] += value
    assert found == by_hand
    assert len(by_hand) == 5


def test_an_empty_table_adds_nothing() -> None:
    assert list(of_table(random_table(0).slice(0, 0))) == []
