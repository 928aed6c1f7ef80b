"""Small CSV, TSV and JSON lines that would take much memory."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import ConfigError
from pipeline.sources._tables import csv_header, jsonl_table
from tests.sources.bounded_manifests import MB, read
from tests.sources.test_manifest import listed, source
from tests.support import bounded

# -- text -----------------------------------------------------------------------------------------


def _many_lines() -> bytes:
    """Over 1 GiB of text; a gzip file may consist of several members."""
    return gzip.compress(b"id,t\n", 1) + 17 * gzip.compress(b"a,b\n" * (16 * MB), 1)


TEXTS: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "csv": ("m.csv.gz", _many_lines, "1073741824 bytes of text"),
    "one cell": ("m.csv.bz2", lambda: bz2.compress(b'id,t\na,"' + b"x" * (200 * MB)), "opens a quote that nothing"),
    "a line of JSON": (
        "m.jsonl.gz",
        lambda: gzip.compress(b'{"id": "' + b"x" * (400 * MB), 1),
        "line 1 of .* has more",
    ),
    "a header": ("m.csv.gz", lambda: gzip.compress(b"id,t" + b"," * (20 * MB) + b"\n", 1), "its first line has more"),
    "columns": ("m.csv", lambda: b"id,t" + b"," * 300_000 + b"\na,b\n", "has 300002 columns; at most 200000"),
    "names": (
        "m.jsonl",
        lambda: b"".join(b'{"id": "%d", "n%d": 1}\n' % (i, i) for i in range(250_000)),
        "has too many names; at most 200000",
    ),
    "nested": ("m.jsonl", lambda: b'{"id": ' + b"[" * 100_000 + b"\n", "is not JSON"),
    "digits": ("m.jsonl", lambda: b'{"id": "a", "t": ' + b"9" * 10_000 + b"}\n", "is not JSON"),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name == "csv" else []) for name in TEXTS]
)
def test_few_bytes_of_text_take_no_memory(tmp_path: Path, name: str) -> None:
    file, make, why = TEXTS[name]
    path = tmp_path / file
    path.write_bytes(make())
    assert path.stat().st_size < 16 * MB
    done = read(path)
    assert done.out.startswith("ERROR"), done.out
    assert re.search(why, done.out), done.out
    assert done.peak_mb < 3500  # three times the limit


@pytest.mark.slow
def test_lines_of_json_are_not_all_held_as_objects(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    with path.open("w") as file:
        for i in range(1_500_000):
            file.write(f'{{"id":"{i}","t":"x"}}\n')
    done = bounded.run("tests.sources.programs.count_manifest_rows", path)
    assert done.out == "1500000"
    assert done.peak_mb < 350


def test_types_of_json_lines_are_one_over_all_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines are converted all together, and one by one."""
    rows: list[dict[str, Any]] = [
        {"id": "a", "n": 1, "s": {"x": 1}, "l": []},
        {"id": "b", "n": 1.5, "s": {"y": "q"}, "l": ["w"]},
        {"id": "c", "n": None, "s": None, "l": None},
        {"id": "d"},
    ]
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    whole = listed(path, {"id": "id", "inline_text": "id"}, passthrough=["n", "s", "l"])
    monkeypatch.setattr(jsonl_table, "_LINES_BYTES", 1)
    assert listed(path, {"id": "id", "inline_text": "id"}, passthrough=["n", "s", "l"]) == whole
    path.write_text('{"id": "a"}\n{"id": 1}\n')
    with pytest.raises(ConfigError, match=r"column 'id' of .* has no one type"):
        source(path, {"id": "id", "inline_text": "id"})


_TEXT = st.text(st.sampled_from("ab,;\"\n\r \t'é\ufeff"), max_size=12)


@given(st.lists(_TEXT, min_size=1, max_size=4), st.lists(_TEXT, max_size=3), st.booleans())
def test_the_names_of_a_csv_are_those_that_arrow_reads(names: list[str], tail: list[str], quoted: bool) -> None:
    import pyarrow.csv as arrow_csv

    head = ",".join('"' + name.replace('"', '""') + '"' if quoted else name for name in names)
    data = "\n".join([head, *tail]).encode()
    try:
        expected = arrow_csv.read_csv(
            io.BytesIO(data),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=lambda row: "skip"),
        ).column_names
    except pa.ArrowInvalid:
        return
    assert csv_header.read_header(data, ",") == expected
