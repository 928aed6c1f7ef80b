"""Columns of Arrow's view types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core.errors import ConfigError
from tests.sources.manifests import listed, source

# -- views ----------------------------------------------------------------------------------------

LONG = "more than the twelve bytes that a view holds by itself"


VIEWS: list[tuple[Any, Any, list[Any]]] = [
    (pa.string_view(), pa.string(), ["x", None, LONG]),
    (pa.binary_view(), pa.binary(), [b"\x00\xff", None, LONG.encode()]),
    (pa.list_(pa.string_view()), pa.list_(pa.string()), [["x", None], None, [LONG]]),
    (pa.large_list(pa.string_view()), pa.large_list(pa.string()), [["x"], None, []]),
    (pa.list_(pa.binary_view(), 2), pa.list_(pa.binary(), 2), [[b"x", None], None, [b"", b"y"]]),
    (
        pa.struct([("a", pa.string_view()), ("n", pa.int8())]),
        pa.struct([("a", pa.string()), ("n", pa.int8())]),
        [{"a": "x", "n": 1}, None, {"a": None, "n": None}],
    ),
    (
        pa.list_(pa.struct([("a", pa.list_(pa.string_view()))])),
        pa.list_(pa.struct([("a", pa.list_(pa.string()))])),
        [[{"a": ["x"]}], None, []],
    ),
    (pa.map_(pa.string_view(), pa.string_view()), pa.map_(pa.string(), pa.string()), [[("k", "v")], None, []]),
]


@pytest.mark.parametrize(("kind", "stored", "values"), VIEWS, ids=lambda one: str(one)[:30])
def test_views_are_copied_as_what_they_show(tmp_path: Path, kind: Any, stored: Any, values: list[Any]) -> None:
    table = pa.table({"id": ["c", "b", "a"], "pic": ["1", "2", "3"], "v": pa.array(values, kind)})
    pq.write_table(table, tmp_path / "m.parquet")
    assert pq.read_schema(tmp_path / "m.parquet").field("v").type == kind
    made = source(tmp_path / "m.parquet", {"id": "id", "image": "pic"}, passthrough=["v"])
    assert made.passthrough().field("v").type == stored
    (found,) = made.list()
    assert found["v"].type == stored
    assert found["v"].to_pylist() == values[::-1]
    pq.write_table(found.select(["v"]), tmp_path / "shard.parquet")
    assert pq.read_table(tmp_path / "shard.parquet")["v"].to_pylist() == values[::-1]


def test_ids_files_and_texts_may_be_views(tmp_path: Path) -> None:
    table = pa.table({name: pa.array([f"{name} {LONG}"], pa.string_view()) for name in ("id", "pic", "words")})
    pq.write_table(table, tmp_path / "m.parquet")
    (found,) = listed(tmp_path / "m.parquet", {"id": "id", "image": "pic", "inline_text": "words"}).values()
    assert (found["sample_id"], found["inline_text"]) == (f"id {LONG}", f"words {LONG}")
    for limit, why in ((len(LONG) + 5, "a value of 'words' from row 1 on in .* has 60 bytes"), (len(LONG) + 6, None)):
        columns = {"id": "id", "inline_text": "words"}
        if why is None:
            assert len(listed(tmp_path / "m.parquet", columns, max_cell_bytes=limit)) == 1
        else:
            with pytest.raises(ConfigError, match=why):
                listed(tmp_path / "m.parquet", columns, max_cell_bytes=limit)


def test_views_of_a_folder_fit_strings(tmp_path: Path) -> None:
    for name, kind in (("a", pa.string()), ("b", pa.string_view()), ("c", pa.large_string())):
        pq.write_table(pa.table({"id": [name], "v": pa.array([name], kind)}), tmp_path / f"{name}.parquet")
    found = listed(tmp_path, {"image": "id"}, passthrough=["v"])
    assert {row["v"] for row in found.values()} == {"a", "b", "c"}


def test_views_of_lists_are_never_cast(tmp_path: Path) -> None:
    """pyarrow 26 loses values when it casts one to a list, without an error."""
    values = [["x", None], None, [LONG]]
    for name, kind in (("a", pa.list_view(pa.string_view())), ("b", pa.list_view(pa.string()))):
        table = pa.table({"pic": ["1", "2", "3"], "v": pa.array(values, kind)})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    with pytest.raises(ConfigError, match=r"source\.passthrough: column 'v' holds list_view<.*, which cannot be cast;"):
        source(tmp_path / "a.parquet", {"image": "pic"}, passthrough=["v"])
    found = listed(tmp_path / "b.parquet", {"image": "pic"}, passthrough=["v"])
    assert [found[name]["v"] for name in "123"] == values
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"pic": ["0"], "v": [["y"]]}), tmp_path / "in" / "a.parquet")
    (tmp_path / "b.parquet").rename(tmp_path / "in" / "b.parquet")
    with pytest.raises(ConfigError, match=r"column 'v' of 'b\.parquet' .* holds list_view<"):
        source(tmp_path / "in", {"image": "pic"}, passthrough=["v"])
