"""Manifests in CSV, TSV and JSON lines: other separators, names that nearly match, columns of several types."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from pipeline.core.errors import ConfigError
from pipeline.sources._tables import csv_header, csv_quotes, csv_table, jsonl_table, jsonl_types
from pipeline.sources.manifest import Config
from tests.sources.test_manifest import listed, source

COLUMNS = {"id": "id", "inline_text": "words"}


# -- separators -----------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", [";", "|", "\t", ":", " ", ","])
@pytest.mark.parametrize("form", ["csv", "tsv"])
def test_a_separator_is_the_one_that_is_given(tmp_path: Path, separator: str, form: str) -> None:
    path = tmp_path / f"m.{form}"
    path.write_text(f'id{separator}words\n"a{separator}b"{separator}x\nc{separator}"y ""z"""\n')
    found = listed(path, COLUMNS, separator=separator)
    assert {name: row["inline_text"] for name, row in found.items()} == {f"a{separator}b": "x", "c": 'y "z"'}


def test_without_one_it_is_a_comma_and_of_tsv_a_tab(tmp_path: Path) -> None:
    for form, separator in (("csv", ","), ("tsv", "\t")):
        path = tmp_path / f"m.{form}"
        path.write_text(f"id{separator}words\na{separator}x;y\n")
        assert listed(path, COLUMNS)["a"]["inline_text"] == "x;y"


@pytest.mark.parametrize("separator", ["", ";;", '"', "\n", "\r", "\0", "§"])
def test_a_separator_is_one_character(separator: str) -> None:
    with pytest.raises(ValidationError, match="one ASCII character"):
        Config(path="m.csv", columns={"image": "p"}, separator=separator)


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_only_csv_and_tsv_have_one(tmp_path: Path, form: str) -> None:
    (tmp_path / f"m.{form}").write_text('{"id": "a", "words": "b"}')
    with pytest.raises(ConfigError, match=rf"^source\.separator: .* is read as {form}; null: only CSV and TSV"):
        source(tmp_path / f"m.{form}", COLUMNS, separator=";")


@pytest.mark.parametrize(
    ("header", "form", "line"),
    [
        ("id;words;more", "csv", "set source.separator: ';'"),
        ("id|words", "csv", "set source.separator: '|'"),
        ("id\twords", "csv", 'set source.separator: "\\t"'),
        ("id,words", "tsv", "set source.separator: ','"),
        ('"id";"words"', "csv", "set source.separator: ';'"),
        ("ID; words", "csv", "set source.separator: ';'"),
        ("id;words, and more", "csv", None),
        ("id;text", "csv", None),
        ("no;words", "csv", None),
    ],
)
def test_a_header_shows_the_separator_that_is_meant(tmp_path: Path, header: str, form: str, line: str | None) -> None:
    path = tmp_path / f"m.{form}"
    path.write_text(f"{header}\na;b, c|d\te\n")
    with pytest.raises(ConfigError, match=r"^source\.columns\.id: no column 'id' in the manifest") as error:
        source(path, COLUMNS)
    assert ("separator" in str(error.value)) == (line is not None)
    if line is not None:
        assert str(error.value).endswith(line)
        mark = line.rpartition(" ")[2][1:-1].replace("\\t", "\t")
        assert f"whose separator looks like {mark!r}; " in str(error.value)


# -- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("id, words", "no column 'words' in the manifest (did you mean ' words'?); one of: 'id', ' words'"),
        ("id,Words ", "no column 'words' in the manifest (did you mean 'Words '?); one of: 'id', 'Words '"),
        ("id,wo\trds", "no column 'words' in the manifest (did you mean 'wo\\trds'?); one of: 'id', 'wo\\trds'"),
        ("id,wörds", "no column 'words' in the manifest; one of: 'id', 'wörds'"),
    ],
)
def test_names_are_in_quotes_and_near_ones_are_offered(tmp_path: Path, header: str, message: str) -> None:
    (tmp_path / "m.csv").write_text(f"{header}\na,b\n")
    with pytest.raises(ConfigError) as error:
        source(tmp_path / "m.csv", COLUMNS)
    assert str(error.value) == f"source.columns.inline_text: {message}"


# -- columns of several types ---------------------------------------------------------------------

MIXED: list[tuple[list[Any], int, str]] = [
    ([1, "x"], 2, "holds a string, the lines before it int64"),
    (["x", 1], 2, "holds an integer, the lines before it string"),
    ([None, "x", None, "y", 2.5, "z", 3], 5, "holds a number with a fraction, the lines before it string"),
    ([1, 2.5, 3, "y", "x"], 4, "holds a string, the lines before it double"),
    ([True, 1], 2, "holds an integer, the lines before it bool"),
    (["x", ["y"]], 2, "holds a list, the lines before it string"),
    (["x", {"y": 1}], 2, "holds an object, the lines before it string"),
    ([{"y": 1}, {"y": "a"}], 2, "holds an object, the lines before it struct<y: int64>"),
]


@pytest.mark.parametrize("piece", [1, 20, 1 << 20])
@pytest.mark.parametrize(("values", "line", "message"), MIXED)
def test_the_first_line_of_another_type_is_named(
    tmp_path: Path, values: list[Any], line: int, message: str, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines are converted one by one, some at a time, and all together; another column is mixed in a later line."""
    monkeypatch.setattr(jsonl_table, "_LINES_BYTES", piece)
    rows = [{"id": "a", "words": value} for value in values]
    rows = [*rows, {"id": 5, "words": "x"}]
    text = "not json\n\n" + "\n\n".join(map(json.dumps, rows))
    (tmp_path / "m.jsonl").write_text(text)
    number = text.split("\n").index(json.dumps(rows[line - 1])) + 1
    with pytest.raises(ConfigError) as error:
        source(tmp_path / "m.jsonl", COLUMNS)
    expected = f"column 'words' of '{tmp_path}/m.jsonl' has no one type: line {number} {message}; one type a column"
    assert str(error.value) == f"source.path: {expected}"


def test_numbers_that_fit_together_are_one_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"id": str(i), "words": "w", "n": value} for i, value in enumerate([1, 2.5, None, 3])]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for piece in (1, 1 << 20):
        monkeypatch.setattr(jsonl_table, "_LINES_BYTES", piece)
        made = source(tmp_path / "m.jsonl", COLUMNS, passthrough=["n"])
        assert made.passthrough().field("n").type == pa.float64()
        assert {row["n"] for table in made.list() for row in table.to_pylist()} == {1.0, 2.5, None, 3.0}


def test_an_integer_that_no_float_holds_is_told_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl_table, "_LINES_BYTES", 1)
    rows = [{"id": "a", "words": "w", "n": n} for n in (1, 2**60 + 1, 0.5)]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ConfigError, match=r"column 'n' of .* no one type: line 2 holds a value that is no double"):
        source(tmp_path / "m.jsonl", COLUMNS, passthrough=["n"])


def test_the_first_misfit_is_found_wherever_it_is() -> None:
    for at in range(1, 40):
        values = [1] * at + ["x"] * (40 - at)
        assert jsonl_types.first_misfit(values, lambda some: pa.array(some)) == at


OPEN = [
    'id,words\na,"x\nb,y\nc,z',
    'id,words\na,"x\nb,y\nc,z\n',
    'id,words,notes\na,x,"oops\nb,y,n\nc,z,n\n',  # in a column that is not read
    'id,words\na,5" wide\nb,"x\nc,y\nd,z\n',  # an even number of quotes
    'id,words,notes\na,"x\nb,y,n\n',  # too few fields
    'id,words\na,"x""\nb,y\n',
    '"id","words"\n"a","x',
]
CLOSED = [
    ('id,words\na,"x\ny"\nb,5" wide\n', {"a": "x\ny", "b": '5" wide'}),
    ('id,words\na,5" wide\nb,"x\ny"\n', {"a": '5" wide', "b": "x\ny"}),
    ('id,words\na,"x\ny"', {"a": "x\ny"}),
    ('id,words\na,"x ""y"""\nb,""\n', {"a": 'x "y"', "b": None}),
    ('id,words\na,"x"y"z\nb,c\n', {"a": 'xy"z', "b": "c"}),
    ('id,words\na,"x\ny" \nb,c\n', {"a": "x\ny ", "b": "c"}),
    ('\ufeff"id","words"\r\na,"x,\r\ny"\r\n', {"a": "x,\r\ny"}),
]


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize("text", OPEN)
def test_a_quote_that_nothing_closes_loses_no_row(
    tmp_path: Path, text: str, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rows after the quote become one field, in a row of the right width or not."""
    monkeypatch.setattr(csv_table, "_CSV_BLOCK_BYTES", max(piece, 64))
    monkeypatch.setattr(csv_header, "HEADER_BYTES", max(piece, 32))
    path = tmp_path / "m.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"row \d of '.*m\.csv' opens a quote that nothing closes"):
        listed(path, COLUMNS)


@pytest.mark.parametrize("piece", [1, 2, 3, 5, 100])
@pytest.mark.parametrize(
    "text",
    [
        'id,words\na,"x\nb,y\nc,"z\nd,w\n',
        'id,words\n"a""\nb","y\nc,"z\nd,"w',
        'id,words\ra,"x\rb,y\rc,"z"\rd,w\r',
    ],
)
def test_a_quote_that_closes_another_field_is_none(
    tmp_path: Path, text: str, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows between the quotes would be part of one field."""
    path = tmp_path / "m.csv"
    path.write_text(text)
    with pytest.raises(
        ConfigError, match=r"of several lines in .*, which begins with '.*', goes on behind its closing"
    ):
        listed(path, COLUMNS)
    quotes, data = csv_quotes.QuoteTracker(","), text.encode()
    for at in range(0, len(data), piece):
        quotes.feed(data[at : at + piece])
    assert quotes.odd is not None


@pytest.mark.parametrize(("text", "found"), CLOSED)
def test_quotes_that_are_closed_or_open_nothing(tmp_path: Path, text: str, found: dict[str, str]) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(text.encode())
    assert {name: row["inline_text"] for name, row in listed(path, COLUMNS).items()} == found


@pytest.mark.parametrize("piece", [1, 2, 3, 5, 100])
@pytest.mark.parametrize("text", [*OPEN, *(text for text, _ in CLOSED), 'a,"' + '"' * 40, 'a,"' + '"' * 41])
def test_the_end_of_a_csv_is_known_whatever_the_pieces(text: str, piece: int) -> None:
    """Compared with Python's own parser: whether it accepts one more row."""
    quotes, data = csv_quotes.QuoteTracker(","), text.encode()
    for at in range(0, len(data), piece):
        quotes.feed(data[at : at + piece])
    last = list(csv.reader(io.StringIO(text.removeprefix("\ufeff") + "\nlast,row", newline="")))[-1]
    assert quotes.is_open == (last != ["last", "row"])


def test_a_quote_that_is_never_closed_is_named_before_any_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rows behind it are one value, which is larger than a block of pyarrow's or than a value may be."""
    path = tmp_path / "m.csv"
    path.write_text('id,words\na,"x\n' + "".join(f"b{i},y\n" for i in range(2000)))
    with pytest.raises(ConfigError, match=r"row 1 of '.*m\.csv' opens a quote that nothing closes"):
        listed(path, COLUMNS, max_cell_bytes=1024)
    monkeypatch.setattr(csv_table, "_CSV_BLOCK_BYTES", 1024)
    with pytest.raises(ConfigError, match=r"opens a quote that nothing closes within 1024 bytes"):
        listed(path, COLUMNS)
