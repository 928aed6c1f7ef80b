"""Columns of another version arrive at their rows, whatever file, row group and order they stand in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core.errors import ConfigError
from pipeline.dataset.commit.data_files import File
from pipeline.stages.reuse import KeepColumnsStage, ReuseColumnsStage, StoredTimes
from pipeline.stages.rows import FAILURE_TYPE, STORED_WINDOWS

FIELDS = [pa.field("f_tokens", pa.list_(pa.list_(pa.float16(), 2))), pa.field("f_grid", pa.list_(pa.int32()))]


class Doubled:
    """What the stage asks of a feature."""

    name = "f"

    def fields(self) -> list[pa.Field]:
        return FIELDS


def values(number: int) -> list[list[float]]:
    return [[number, 0.5]] * (number % 3)


def shard(root: Path, name: str, numbers: list[int]) -> File:
    """Row i holds ``numbers[i]``; a negative one is null. Row groups of three rows."""
    rows = [None if n < 0 else np.array(values(n), np.float16).reshape(-1, 2) for n in numbers]
    columns = {
        "other": pa.array(numbers),
        "f_tokens": pa.array([None if r is None else r.tolist() for r in rows], FIELDS[0].type),
        "f_grid": pa.array([None if r is None else [len(r), 1, 1] for r in rows], FIELDS[1].type),
    }
    (root / "data").mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), root / "data" / name, row_group_size=3)
    return File(f"data/{name}", len(numbers), 1, "")


def test_rows_are_filled_from_their_places(tmp_path: Path) -> None:
    files = [shard(tmp_path, "a.parquet", list(range(10))), shard(tmp_path, "b.parquet", [20, -1, 22, 23])]
    wanted: list[tuple[int, int] | None] = [(0, 9), None, (1, 1), (0, 0), (1, 3), None, (0, 4), (1, 0)]
    table = pa.table(
        {
            "carry_file": pa.array([w and w[0] for w in wanted], pa.int32()),
            "carry_position": pa.array([w and w[1] for w in wanted], pa.int64()),
            "cells": pa.array([1] * len(wanted), pa.int32()),
            "f_tokens": pa.array([None, [[7, 7]], None, None, None, None, None, None], FIELDS[0].type),
            "f_grid": pa.array([None, [1, 1, 1], None, None, None, None, None, None], FIELDS[1].type),
        }
    )
    features: Any = (Doubled(),)
    done = ReuseColumnsStage(str(tmp_path), files, features)(table)
    numbers = [9, None, None, 0, 23, None, 4, 20]
    expected = [None if n is None else values(n) for n in numbers]
    expected[1] = [[7, 7]]
    assert done["f_tokens"].to_pylist() == expected
    assert done["f_grid"].to_pylist() == [None if e is None else [len(e), 1, 1] for e in expected]
    assert done["cells"].to_pylist() == [2, 1, 1, 2, 2, 1, 2, 2]
    assert done.schema.field("f_tokens").type == FIELDS[0].type


def test_rows_of_nowhere_stay_as_they_are(tmp_path: Path) -> None:
    table = pa.table({"carry_file": pa.nulls(2, pa.int32()), "carry_position": pa.nulls(2, pa.int64())})
    features: Any = (Doubled(),)
    assert ReuseColumnsStage(str(tmp_path), [], features)(table) is table


# -- rows that are computed once more --------------------------------------------------------------


def _again(tmp_path: Path, failures: list[list[dict[str, Any]]], **changes: Any) -> pa.Table:
    """Four rows whose feature could not be computed, with the old rows 0, 1, 2 (null) and none."""
    (tmp_path / "data").mkdir(exist_ok=True)
    old = shard(tmp_path, "a.parquet", [1, 4, -1])
    table = pq.read_table(tmp_path / "data" / "a.parquet")
    times = changes.pop("stored", {"start_s": [0.0, 5.0, 10.0], "end_s": [5.0, 10.0, 12.0]})
    for name, values_ in times.items():
        table = table.append_column(name, values_ if isinstance(values_, pa.Array) else pa.array(values_))
    pq.write_table(table, tmp_path / "data" / "a.parquet")
    feature: Any = type("Of", (Timed,), {"modality": changes.pop("modality", "audio")})()
    cuts_text = changes.pop("cuts_text", False)
    columns: dict[str, Any] = {
        "carry_file": pa.array([0, 0, 0, None], pa.int32()),
        "carry_position": pa.array([0, 1, 2, None], pa.int64()),
        "start_s": [0.0, 5.0, 10.0, 15.0],
        "end_s": [5.0, 10.0, 12.0, 20.0],
        "text_from": pa.nulls(4, pa.int64()),
        "text_uri": pa.nulls(4, pa.string()),
        "inline_text": pa.nulls(4, pa.string()),
        "windows": pa.array([1, 1, 1, 1], pa.int32()),
        STORED_WINDOWS: pa.array([2, 2, 2, 2], pa.int32()),
        "cells": pa.array([len(one) for one in failures], pa.int32()),
        "failures": pa.array(failures, pa.list_(FAILURE_TYPE)),
        "f_tokens": pa.nulls(4, FIELDS[0].type),
        "f_grid": pa.nulls(4, FIELDS[1].type),
        **changes,
    }
    return KeepColumnsStage(str(tmp_path), [old], (feature,), cuts_text)(pa.table(columns))


class Timed(Doubled):
    modality = "audio"


def _failed(feature: str = "f", stage: str = "decode") -> dict[str, Any]:
    return {"feature": feature, "uri": "u", "stage": stage, "kind": "io", "message": "m"}


def test_a_cell_that_fails_now_is_kept(tmp_path: Path) -> None:
    done = _again(tmp_path, [[_failed()], [_failed(), _failed("g")], [_failed()], [_failed()]])
    assert done["f_tokens"].to_pylist() == [values(1), values(4), None, None]
    assert [[one["feature"] for one in row] for row in done["failures"].to_pylist()] == [[], ["g"], ["f"], ["f"]]
    assert done["cells"].to_pylist() == [1, 2, 1, 1], "written + failed"


def test_a_cell_of_another_window_is_not_taken(tmp_path: Path) -> None:
    done = _again(tmp_path, [[_failed()]] * 4, start_s=[0.0, 4.0, 10.0, 15.0])
    assert done["f_tokens"].to_pylist() == [values(1), None, None, None]


def test_a_row_without_times_holds_what_belongs_to_every_window(tmp_path: Path) -> None:
    """Such a row was made while no file with times could be read."""
    old = {"start_s": pa.array([None, 5.0, 10.0]), "end_s": pa.array([None, 10.0, 12.0])}
    done = _again(tmp_path, [[_failed()], [], [], []], stored=old)
    assert done["f_tokens"].to_pylist() == [values(1), values(4), None, None]


def test_a_sound_that_ended_before_is_the_same_in_a_longer_window(tmp_path: Path) -> None:
    later = {"start_s": [0.0, 5.0, 10.0, 15.0], "end_s": [5.3, 9.0, 13.0, 20.0]}
    done = _again(tmp_path, [[_failed()]] * 4, **later)
    assert done["f_tokens"].to_pylist() == [values(1), None, None, None]
    done = _again(tmp_path, [[_failed()]] * 4, **later, modality="video")
    assert done["f_tokens"].to_pylist() == [None] * 4


def test_a_part_of_a_text_is_not_taken_for_the_whole(tmp_path: Path) -> None:
    """Where a feature cuts texts, a row without times holds a part; the same one, unless the text is whole now."""
    old = {"start_s": pa.array([None, None, 10.0]), "end_s": pa.array([None, None, 12.0])}
    new = {name: pa.array([None, None, 10.0, 15.0]) for name in ("start_s", "end_s")}
    options: dict[str, Any] = {"stored": old, "modality": "text", "cuts_text": True, **new}
    uris = pa.array(["u", None, "u", None])
    done = _again(tmp_path, [[_failed()]] * 4, **options, text_uri=uris)
    assert done["f_tokens"].to_pylist() == [None, values(4), None, None], "whole now; not read; null; none"
    done = _again(tmp_path, [[_failed()]] * 4, **options, text_uri=uris, text_from=pa.array([0, 7, None, None]))
    assert done["f_tokens"].to_pylist() == [values(1), values(4), None, None], "cut again"
    alone = pa.array([1, 1, 1, 1], pa.int32())
    done = _again(tmp_path, [[_failed()]] * 4, **options, text_uri=uris, **{STORED_WINDOWS: alone})
    assert done["f_tokens"].to_pylist() == [values(1), values(4), None, None], "the only row has all of the text"
    options["cuts_text"] = False
    done = _again(tmp_path, [[_failed()]] * 4, **options, text_uri=uris)
    assert done["f_tokens"].to_pylist() == [values(1), values(4), None, None]


def test_times_of_stored_rows(tmp_path: Path) -> None:
    table = pa.table({"start_s": [0.0, None, 5.0], "end_s": [5.0, None, 7.5], "other": [1, 2, 3]})
    (tmp_path / "data").mkdir()
    pq.write_table(table, tmp_path / "data" / "a.parquet", row_group_size=2)
    times = StoredTimes(str(tmp_path), [File("data/a.parquet", 3, 1, "")])
    assert [times.of(0, position) for position in range(3)] == [(0.0, 5.0), (None, None), (5.0, 7.5)]


def test_a_failure_of_the_file_stays_where_other_windows_may_lack_it(tmp_path: Path) -> None:
    failures = [[_failed(stage="probe")], [], [], []]
    done = _again(tmp_path, failures, windows=pa.array([2, 2, 2, 2], pa.int32()))
    assert done["f_tokens"].to_pylist() == [values(1), values(4), None, None]
    assert [len(row) for row in done["failures"].to_pylist()] == [1, 0, 0, 0]
    assert done["cells"].to_pylist() == [2, 1, 0, 0]


@pytest.mark.parametrize("uri", ["u", None])
def test_an_old_row_that_is_gone(tmp_path: Path, uri: str | None) -> None:
    """Then what was computed counts; where nothing was, the row would be lost, and the run ends."""
    (tmp_path / "data").mkdir()
    features: Any = (Timed(),)
    table = pa.table(
        {
            "carry_file": pa.array([0], pa.int32()),
            "carry_position": pa.array([0], pa.int64()),
            **{f"{one}_uri": pa.nulls(1, pa.string()) for one in ("text", "image", "video")},
            "audio_uri": pa.array([uri], pa.string()),
            "inline_text": pa.nulls(1, pa.string()),
            "failures": pa.array([[_failed()]], pa.list_(FAILURE_TYPE)),
            "f_tokens": pa.nulls(1, FIELDS[0].type),
            "f_grid": pa.nulls(1, FIELDS[1].type),
        }
    )
    stage = KeepColumnsStage(str(tmp_path), [File("data/gone.parquet", 4, 1, "")], features)
    if uri is not None:
        assert stage(table).equals(table)
    else:
        with pytest.raises(ConfigError, match=r"data/gone\.parquet"):
            stage(table)
