"""A bad row of a manifest is listed with its place and the reason; the other rows are listed as without it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.core.errors import ConfigError
from pipeline.core.schema import LISTING
from pipeline.sources import manifest as module
from pipeline.sources._tables import csv_table, table_reader, text_table
from tests.sources.test_manifest import listed, source, write
from tests.support import bounded

COLUMNS = {"id": "id", "image": "pic"}


def refused(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: row["refused"] for name, row in found.items() if row["refused"] is not None}


def invalid_strings(values: list[bytes | None]) -> pa.Array:
    """Strings of arbitrary bytes, as a Parquet file may contain."""
    binary = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(values), binary.buffers())


@pytest.mark.parametrize("form", ["parquet", "csv", "tsv", "jsonl"])
def test_bad_rows_cost_themselves(tmp_path: Path, form: str) -> None:
    rows: list[dict[str, Any]] = [
        {"id": "a", "pic": "a.jpg", "n": "1"},
        {"id": None, "pic": "b.jpg", "n": "2"},
        {"id": "c", "pic": "http://host/c.jpg", "n": "3"},
        {"id": "", "pic": None, "n": "4"},
        {"id": "e", "pic": "s3://KEY:hunter2@bucket/e.jpg", "n": "5"},
        {"id": "f", "pic": "f.jpg", "n": "https://host/f?token=hunter2"},
        {"id": "https://u:hunter2@host/g", "pic": "g.jpg", "n": "7"},
        {"id": "h", "pic": "h.jpg", "n": "8"},
    ]
    path = write(tmp_path, form, rows)
    found = listed(path, COLUMNS, passthrough=["n"])
    unit, name = "line" if form == "jsonl" else "row", path.name
    schemes = "schemes that are allowed: file, s3, gs, abfs, memory"
    assert refused(found) == {
        f"{name}#{unit} {number}": f"{unit} {number} of '{name}' {reason}"
        for number, reason in {
            2: "has no id",
            3: f"has 'http://host/c.jpg' in column 'pic'; {schemes}",
            4: "has no id and no file",
            5: "has a URL with a password or a signature in column 'pic'",
            6: "has a URL with a password or a signature in column 'n'",
            7: "has an id that is a URL with a password or a signature",
        }.items()
    }
    for row in (found[one] for one in refused(found)):
        assert {key for key, value in row.items() if value is not None} == {"sample_id", "source_version", "refused"}
    assert len({row["source_version"] for row in found.values()}) == 8
    assert "hunter2" not in str(found)
    # the good ones are what they are without the bad ones
    (tmp_path / "alone").mkdir()
    alone = listed(write(tmp_path / "alone", form, [rows[0], rows[7]]), COLUMNS, passthrough=["n"], root=str(tmp_path))
    assert {key: row for key, row in found.items() if row["refused"] is None} == alone


def test_a_version_depends_on_the_reason_and_the_place_and_on_no_secret(tmp_path: Path) -> None:
    good: dict[str, Any] = {"id": "ok", "pic": "ok.jpg"}

    def versions(*rows: dict[str, Any]) -> dict[str, str]:
        found = listed(write(tmp_path, "csv", [good, *rows]), COLUMNS)
        return {name: row["source_version"] for name, row in found.items() if row["refused"] is not None}

    first = versions({"id": "a", "pic": "s3://u:one@b/c"})
    assert versions({"id": "a", "pic": "s3://u:two@b/c"}) == first
    assert versions({"id": "a", "pic": "http://h/c"}) != first
    both = versions({"id": None, "pic": "x"}, {"id": None, "pic": "x"})
    assert len(set(both.values())) == 2
    reason = "has a URL with a password or a signature in column 'pic'"
    assert first == {"m.csv#row 2": hashlib.sha256(json.dumps(["row 2", reason]).encode()).hexdigest()}


# -- rows that no parser takes --------------------------------------------------------------------


def test_lines_that_are_no_objects(tmp_path: Path) -> None:
    lines = [
        b'{"id": "a", "pic": "a.jpg", "n": [1]}',
        b'{"id": "b", "pic": broken',
        b"",
        b"[1]",
        b'{"id": "\xff", "pic": "c.jpg"}',
        b'"text"',
        b"12",
        b"null",
        b"[" * 100_000,
        b'{"id": "\\ud800", "pic": "d.jpg"}',
        b'{"id": "e", "pic": "e.jpg", "n": [2, "x"]}',
        b'{"id": "f", "pic": "f.jpg", "n": [3]}',
        b'{"id": "g", "pic": "g.jpg", "n": [99999999999999999999999]}',
    ]
    (tmp_path / "m.jsonl").write_bytes(b"\n".join(lines))
    found = listed(tmp_path / "m.jsonl", COLUMNS, passthrough=["n"])
    assert {name: row["n"] for name, row in found.items() if row["refused"] is None} == {"a": [1], "f": [3]}
    reasons = {int(name.removeprefix("m.jsonl#line ")): reason for name, reason in refused(found).items()}
    begin = {number: f"line {number} of 'm.jsonl' " for number in reasons}
    assert sorted(reasons) == [2, 4, 5, 6, 7, 8, 9, 10, 11, 13]
    for number, words in {
        2: "is not JSON (Expecting value",
        4: "holds a list, not an object",
        5: "is not JSON ('utf-8' codec",
        6: "holds a string, not an object",
        7: "holds an integer, not an object",
        8: "holds null, not an object",
        9: "is not JSON (maximum recursion",
        10: "has in column 'id' a value that cannot be read (UnicodeEncodeError",
        11: "has in column 'n' a value that cannot be read (Arrow",
        13: "has in column 'n' a value that cannot be read (OverflowError",
    }.items():
        assert reasons[number].startswith(begin[number] + words), reasons[number]


def _csv_by_hand(data: bytes, width: int) -> tuple[dict[int, list[str]], set[int]]:
    """Returns row -> values, and the rows of another width, as Python's own reader parses them."""
    rows = [row for row in csv.reader(io.StringIO(data.decode(), newline="")) if row][1:]
    good = {i: row for i, row in enumerate(rows, 1) if len(row) == width}
    return good, {*range(1, len(rows) + 1)} - {*good}


@pytest.mark.parametrize("block", [60, 1 << 20])
def test_rows_of_a_csv_of_another_width(tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later rows keep their numbers, over blocks, empty lines and values of several lines."""
    monkeypatch.setattr(csv_table, "_CSV_BLOCK_BYTES", block)
    monkeypatch.setattr(module, "LISTING_ROWS", 7)
    rng = np.random.default_rng(0)
    lines = ["", "id,pic", ""]
    for i in range(200):
        kind = rng.integers(0, 8)
        lines.append([f"i{i}", f"i{i},a,b", "", f'"i{i}\n,x",c.jpg'][kind] if kind < 4 else f"i{i},{i}.jpg")
    data = "\n".join(lines).encode()
    (tmp_path / "m.csv").write_bytes(data)
    good, bad = _csv_by_hand(data, 2)
    assert len(good) > 50
    assert len(bad) > 20
    found = listed(tmp_path / "m.csv", COLUMNS)
    assert {name for name, row in found.items() if row["refused"] is None} == {row[0] for row in good.values()}
    assert set(refused(found)) == {f"m.csv#row {number}" for number in bad}
    assert set(refused(found).values()) <= {
        f"row {number} of 'm.csv' has {count}, not 2" for number in bad for count in ("1 field", "3 fields")
    }
    made = source(tmp_path / "m.csv", COLUMNS)
    places = {
        row[0].as_py(): part.place(i)
        for part in made._manifest.read(["id"], 7)
        for i, row in enumerate(zip(part.table["id"], strict=True))
    }
    assert places == {row[0]: f"row {number}" for number, row in good.items()}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.lists(st.sampled_from(["", "a", "b c", "1.5"]), min_size=1, max_size=4), max_size=12))
def test_rows_of_a_csv_are_those_that_python_reads(tmp_path: Path, rows: list[list[str]]) -> None:
    data = "\n".join(["k,p", *(",".join(row) for row in rows), ""]).encode()
    (tmp_path / "m.csv").write_bytes(data)
    good, bad = _csv_by_hand(data, 2)
    made = source(tmp_path / "m.csv", {"image": "p"}, passthrough=["k"])
    parts = list(made._manifest.read(["k", "p"], 5))
    found = {part.place(i): row for part in parts for i, row in enumerate(part.table.to_pylist())}
    assert found == {f"row {i}": {"k": row[0] or None, "p": row[1] or None} for i, row in good.items()}
    assert {one.place for part in parts for one in part.unparsed} == {f"row {i}" for i in bad}


def test_a_quote_that_nothing_closes_ends_the_run(tmp_path: Path) -> None:
    """All rows after the quote would be part of the field."""
    (tmp_path / "m.csv").write_text('id,pic\na,1.jpg\n"b,2.jpg\nc,3.jpg\nd,4.jpg\n')
    with pytest.raises(ConfigError, match=r"source\.path: row 2 of .* opens a quote that nothing closes"):
        source(tmp_path / "m.csv", COLUMNS)
    (tmp_path / "m.csv").write_text('id,pic\na,1.jpg\n5" pipe,2.jpg,x\nc,3.jpg\n')
    assert set(listed(tmp_path / "m.csv", COLUMNS)) == {"a", "c", "m.csv#row 2"}


def test_a_row_that_is_no_text_and_too_short_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """pyarrow would also write a traceback to the terminal."""
    (tmp_path / "m.csv").write_bytes(b"id,pic\na,1.jpg\n\xff\n")
    with pytest.raises(ConfigError, match=r"as csv .*Row #3: Expected 2 columns, got 1"):
        source(tmp_path / "m.csv", COLUMNS)
    assert capfd.readouterr() == ("", "")


# -- values that Python cannot read ---------------------------------------------------------------


@pytest.mark.parametrize("column", ["id", "pic", "label", "tags", "where"])
@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_a_string_that_is_no_text(tmp_path: Path, form: str, column: str) -> None:
    good = [b"a", b"b", b"c", b"d"]
    columns = {name: pa.array([f"{name}-{one.decode()}" for one in good]) for name in ("id", "pic", "label")}
    broken = invalid_strings([b"x1", b"\xff\xfe", b"x3", b"x4"])
    columns["tags"] = pa.ListArray.from_arrays([0, 1, 2, 3, 4], broken if column == "tags" else columns["label"])
    columns["where"] = pa.StructArray.from_arrays([broken if column == "where" else columns["label"]], names=["at"])
    if column in ("id", "pic", "label"):
        columns[column] = broken
    path = tmp_path / f"m.{form}"
    passthrough = ["label", "tags", "where"]
    if form == "csv":
        if column in ("tags", "where"):
            pytest.skip("CSV has no nested values")
        names, passthrough = ["id", "pic", "label"], ["label"]
        values = [columns[name].view(pa.binary()).to_pylist() for name in names]
        path.write_bytes(b"\n".join(b",".join(row) for row in [[b"id", b"pic", b"label"], *zip(*values, strict=True)]))
    else:
        pq.write_table(pa.table(columns), path, row_group_size=3)
    found = listed(path, COLUMNS, passthrough=passthrough)
    assert len(found) == 4
    (reason,) = refused(found).values()
    assert reason.startswith(f"row 2 of 'm.{form}' has in column '{column}' a value that cannot be read (UnicodeDecode")
    bad = found[f"m.{form}#row 2"]
    assert {key for key, value in bad.items() if value is not None} == {"sample_id", "source_version", "refused"}
    for row in (row for row in found.values() if row["refused"] is None):
        assert None not in [row[name] for name in passthrough]
        assert row["image_uri"] is not None


def test_a_time_that_python_cannot_hold_costs_its_row(tmp_path: Path) -> None:
    times = pa.array([0, 2**62, None], pa.int64()).cast(pa.timestamp("ms"))
    pq.write_table(pa.table({"pic": ["a", "b", "c"], "when": times}), tmp_path / "m.parquet")
    found = listed(tmp_path / "m.parquet", {"image": "pic"}, passthrough=["when"])
    assert set(found) == {"a", "c", "m.parquet#row 2"}
    assert (found["a"]["when"].year, found["c"]["when"], found["m.parquet#row 2"]["when"]) == (1970, None, None)


@pytest.mark.parametrize(
    "values",
    [
        pa.array([[1], [2], None]),
        pa.array([{"x": 1}, {"x": 2}, None]),
        pa.array([[1, 2], [3, 4], None], pa.list_(pa.int8(), 2)),
        pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int8())),
        pa.array(["x", "y", "x"]).dictionary_encode(),
        pa.array([b"ab", b"cd", None], pa.binary(2)),
        pa.array(["x", "y", None], pa.large_string()),
        pa.array([True, False, None]),
        pa.nulls(3),
    ],
    ids=lambda values: str(values.type)[:20],
)
def test_copied_columns_of_any_type_are_null_in_a_bad_row(tmp_path: Path, values: pa.Array) -> None:
    pq.write_table(pa.table({"id": ["b", None, "a"], "pic": ["1", "2", "3"], "v": values}), tmp_path / "m.parquet")
    found = listed(tmp_path / "m.parquet", COLUMNS, passthrough=["v"])
    plain = values.to_pylist()
    assert {name: row["v"] for name, row in found.items()} == {"a": plain[2], "b": plain[0], "m.parquet#row 2": None}


# -- all of them ----------------------------------------------------------------------------------


def test_if_all_rows_are_bad_the_run_ends_with_the_first_reason(tmp_path: Path) -> None:
    path = write(tmp_path, "jsonl", [{"id": None, "pic": "x"}, {"id": "b", "pic": "http://h/x"}, {"id": "", "pic": ""}])
    with pytest.raises(ConfigError) as error:
        listed(path, COLUMNS)
    assert (
        str(error.value)
        == "source.columns: none of 3 rows names a sample: line 1 of 'm.jsonl' has no id; mend the manifest"
    )
    (tmp_path / "m.csv").write_text("id,pic\na\nb\n")
    with pytest.raises(ConfigError, match=r"source\.path: none of 2 rows .* row 1 of 'm.csv' has 1 field, not 2"):
        listed(tmp_path / "m.csv", COLUMNS)
    path = write(tmp_path, "csv", [{"id": "a", "pic": "/elsewhere/x"}, {"id": None, "pic": "y"}])
    with pytest.raises(ConfigError, match=r"source\.roots: all 1 rows \(1 more name no sample\) name files outside"):
        listed(path, COLUMNS)


def test_an_id_that_is_the_place_of_a_bad_row_is_there_twice(tmp_path: Path) -> None:
    path = write(tmp_path, "csv", [{"id": None, "pic": "x"}, {"id": "m.csv#row 1", "pic": "y"}])
    assert str(source(path, COLUMNS).duplicate_id_error("m.csv#row 1")).startswith(
        "source.columns.id: id 'm.csv#row 1' is in row 1 and in row 2;"
    )


def test_a_server_out_of_reach_says_nothing_about_a_row(tmp_path: Path) -> None:
    path = write(tmp_path, "csv", [{"id": "a", "pic": "x"}, {"id": "b", "pic": "nosuchscheme://x"}])
    with pytest.raises(ConfigError, match=r"source\.columns\.image: cannot reach 'nosuchscheme://x'"):
        listed(path, COLUMNS, version="stat", schemes=["file", "nosuchscheme"], roots=["nosuchscheme://"])


# -- names from outside, memory, time -------------------------------------------------------------


def test_reasons_are_one_line_without_secrets_and_controls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_SECRET", "correct horse battery")
    folder = tmp_path / "in"
    folder.mkdir()
    rows = [
        {"id": "a", "pic": "x"},
        {"id": "b", "pic": "http://h/\x1b[31m\n\u202ered"},
        {"id": "c", "pic": "http://h/correct horse battery"},
        {"id": "d", "pic": "http://h/" + "y" * 10_000},
    ]
    path = write(folder, "jsonl", rows)
    path = path.rename(folder / "l\x1b]0;i\nst.jsonl")
    found = refused(listed(path, COLUMNS))
    assert len(found) == 3
    for name, reason in found.items():
        assert reason.isprintable()
        assert name.isprintable()
        assert len(reason) < 500
        assert "correct horse" not in reason
    assert os.path.exists(path)


def _hostile(form: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        if form == "parquet":
            rows = 300_000
            pq.write_table(pa.table({"id": pa.nulls(rows, pa.string()), "t": pa.nulls(rows, pa.string())}), path)
        else:
            head = b"id,t\na,b\n" if form == "csv" else b'{"id": "a", "t": "b"}\n'
            path.write_bytes(head + b"x\n" * 900_000)

    return make


@pytest.mark.parametrize("form", ["parquet", "csv", pytest.param("jsonl", marks=pytest.mark.slow)])
def test_bad_rows_by_the_hundred_thousand_take_little_memory(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"m.{form}"
    _hostile(form)(path)
    done = bounded.run("tests.sources.programs.list_manifest", path, "{}", timeout=280)
    assert done.out.startswith("LISTED 900001" if form != "parquet" else "ERROR 300000"), done.out
    assert done.peak_mb < 400


def test_a_text_of_more_bad_rows_than_can_be_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_table, "MAX_UNPARSED_ROWS", 3)
    for form, head in (("csv", "id,pic\na,b\n"), ("jsonl", '{"id": "a", "pic": "b"}\n')):
        path = tmp_path / f"m.{form}"
        path.write_text(head + "x\n" * 3)
        assert len(listed(path, COLUMNS)) == 4
        path.write_text(head + "x\n" * 4)
        with pytest.raises(ConfigError, match=r"more than 3 rows of .* cannot be read; (row|line) 2 (has 1|is not)"):
            source(path, COLUMNS)


def test_good_values_are_read_in_one_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only slices with a value that cannot be read are converted value by value, which is slow."""
    table = pa.table({"id": ["a", "b"], "pic": ["1", "2"]})
    assert table_reader.values(table, "id", "w") == (["a", "b"], {})
    broken = pa.table({"id": invalid_strings([b"a", b"\xff", b"c"])})
    found, why = table_reader.values(broken, "id", "w")
    assert (found, list(why)) == (["a", None, "c"], [1])


def test_tables_stay_in_order_and_bounded_with_bad_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LISTING_ROWS", 10)
    rows = [{"id": None if i % 3 == 0 else f"{i * 7 % 50:02}", "pic": str(i)} for i in range(50)]
    tables = list(source(write(tmp_path, "parquet", rows), COLUMNS).list())
    assert [len(table) for table in tables] == [10] * 5
    for table in tables:
        assert table.schema.equals(LISTING)
        ids = table["sample_id"].to_pylist()
        assert ids == sorted(ids)
    assert sum(len(table) - table["refused"].null_count for table in tables) == 17
