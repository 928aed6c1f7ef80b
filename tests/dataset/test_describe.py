"""`tessera inspect` shows the content of a dataset, with independently computed counts, at any terminal width."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline import dataset as datasets
from pipeline.core.errors import ConfigError
from pipeline.core.schema import FIXED
from pipeline.core.terminal import Console, json_text
from pipeline.dataset import describe, describe_versions
from pipeline.dataset.output import OutputConfig
from pipeline.dataset.shards.row_files import footer
from pipeline.dataset.shards.writer import ShardWriter
from tests.dataset.shards.test_writer import FIELDS, rows
from tests.support.dataset_fixtures import RUNS, night

RUN = "20260101T000000-0001"
LINEAGE = {
    **dict.fromkeys(("model", "model_type", "tokenizer", "processor", "fingerprint"), "m"),
    "space": "clip:0123456789ab",
    "modality": "audio",
    "emit": ["embedding", "tokens"],
    "revision": None,
    "weights_sha256": "ab" * 32,
    "normalized": True,
    "dim": 3,
    "token_dim": 4,
    "dtype": "float32",
    "prompt": None,
    "head": "native",
    "embedding_dtype": "float32",
    "token_dtype": "float16",
}
ODD: dict[str, Any] = {
    "a_passthrough_column_with_a_name_of_fifty_characters": pa.array(["x" * 500]),
    "when": pa.array([1_767_225_600_000_000_001], pa.timestamp("ns")),
    "raw": pa.array([b"\x00\xff"]),
    "nan": pa.array([math.nan]),
    "vector": pa.array([np.linspace(0, 1, 512)], pa.list_(pa.float32(), 512)),
    "infinite": pa.array([[math.inf, 1.5]], pa.list_(pa.float16())),
    "words": pa.array([["one", None]]),
    "place": pa.array([{"x": 1.5, "when": None}], pa.struct([("x", pa.float64()), ("when", pa.date32())])),
    "flag": pa.array([True]),
    "nothing": pa.array([None], pa.string()),
}
"""Passthrough columns of one row."""


def _dataset(folder: Path, table: pa.Table, features: dict[str, Any], passthrough: list[pa.Field]) -> None:
    """Writes a dataset whose footers describe ``features``."""
    names = [one.name for one in FIELDS]
    schema = pa.schema([*FIXED, *FIELDS, *passthrough])
    schema = footer(schema, {"contract": 1, "run_id": RUN, "features": features, "versions": {}})
    root = folder / "v1"
    writer = ShardWriter(str(root), f"{RUN}-000000", RUN, {"f": names}, schema, OutputConfig(path="x"))
    writer.add(table)
    done = writer.close()
    snapshot = {"contract": 1, "snapshot": 1, "run_id": RUN, "created": "2026-01-01T01:00:00+01:00"}
    (root / "_snapshots").mkdir()
    (root / "_snapshots" / "00000001.json").write_text(
        json.dumps({**snapshot, "shards": done.shards, "failures": done.failure_shards})
    )


def _odd(folder: Path, sample_id: str = "clips/one.mp4") -> None:
    """Writes a dataset of one row with columns of many types."""
    table = rows([sample_id], {})
    for name, values in ODD.items():
        table = table.append_column(name, values)
    _dataset(folder, table, {"f": LINEAGE}, [pa.field(name, one.type) for name, one in ODD.items()])


def _printed(show: Any, *args: Any, width: int = 160, **options: Any) -> str:
    console = Console(width=width, file=io.StringIO())
    show(*args, console, **options)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_it_counts_and_samples(tmp_path: Path) -> None:
    _dataset(tmp_path, rows(["a", "b", "c", "d"], {1: "corrupt", 2: "corrupt"}), {"f": LINEAGE}, [])
    assert (
        _printed(describe.show, str(tmp_path), 1, width=80).replace(str(tmp_path), "OUT")
        == f"""dataset: OUT
version v1 · snapshot 1 · created 2026-01-01 00:00:00 UTC
2 rows in 1 shard, {(tmp_path / "v1/data").glob("*").__next__().stat().st_size / 1000:.1f} kB · 2 failures
feature f
  modality: audio
  model: m (m)
  sha256: {"ab" * 32}
  tokenizer: m
  head: native
  emits: embedding (dim 3 float32), tokens (dim 4 float16)
  space: clip:0123456789ab, normalized
  rows: 2
failures
  2 corrupt · stage decode · feature f
    b: m
row 1
  sample_id: "a"
  window: 0
  start_s: null
  end_s: null
  f_embedding: [0.1257, -0.1321, 0.6404] 3 x float32
  f_tokens: 2 x 4 float16
  f_grid: [2, 1, 1] 3 x int32
  f_times: [0, 0.1] 2 x float64
"""
    )


def test_no_dataset_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        describe.show(str(tmp_path), 1, Console(file=io.StringIO()))
    with pytest.raises(ConfigError):
        describe.document(str(tmp_path), 1)


@pytest.mark.parametrize("width", [60, 80, 160])
def test_every_width_shows_every_name_whole(tmp_path: Path, width: int) -> None:
    long = "a_feature_with_a_name_of_fifty_characters_or_nearly"
    sample_id = "clips/" + "very-" * 40 + "long.mp4"
    _odd(tmp_path, sample_id)
    path = next((tmp_path / "v1" / "_snapshots").iterdir())
    text = _printed(describe.show, str(tmp_path), 5, width=width)
    for name in [*ODD, *FIXED.names[:4], *(field.name for field in FIELDS)]:
        assert f"\n  {name}:" in text, name
    assert sample_id in text
    assert "clip:0123456789ab" in text.split("\n  space: ")[1]
    _within(text, width)
    written = json.loads(path.read_text())
    written["features"] = {"features": {long: {"a": 1}, "other": {"a": 1}}, "passthrough": {}}
    path.write_text(json.dumps(written))
    for show, *args in ((describe_versions.show_snapshots, None), (describe_versions.show_versions,)):
        text = _printed(show, str(tmp_path), *args, width=width)
        _within(text, width)
        assert "2026-01-01 00:00:00" in " ".join(text.split())
    assert long in text
    assert "v1 (current)" in text


def _within(text: str, width: int) -> None:
    """Checks that a line is wider than the terminal only if it is a single word with its name."""
    for line in text.splitlines():
        assert len(line) <= width or len(line.split()) <= 2, line
        assert len(line) <= width or max(map(len, line.split())) > width - 10, line


def test_columns_of_all_types_in_few_words(tmp_path: Path) -> None:
    _odd(tmp_path)
    text = _printed(describe.show, str(tmp_path), 1)
    for line in (
        'sample_id: "clips/one.mp4"',
        'when: "2026-01-01 00:00:00.000000001"',
        "raw: 2 bytes",
        "nan: nan",
        "vector: [0, 0.001957, …] 512 x float32",
        "infinite: [inf, 1.5] 2 x float16",
        'words: ["one", null] 2 x string',
        'place: {"x": 1.5, "when": null}',
        "flag: true",
        "nothing: null",
    ):
        assert f"  {line}\n" in text
    (name,) = [name for name in ODD if name.startswith("a_passthrough")]
    flat = " ".join(text.split())
    assert f'{name}: "{"x" * 80}…{"x" * 80}" (500 characters)' in flat


def test_the_document_is_whole_and_strict(tmp_path: Path) -> None:
    _odd(tmp_path)
    text = json_text(describe.document(str(tmp_path), 3))
    found = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert (found["dataset"], found["version"], found["snapshot"], found["rows"]) == (str(tmp_path), "v1", 1, 1)
    assert found["features"] == {"f": {**LINEAGE, "rows": 1}}
    assert found["spaces"] == {"clip:0123456789ab": ["f"]}
    assert found["sizes"]["shard_bytes"] == sum(one.stat().st_size for one in (tmp_path / "v1" / "data").iterdir())
    assert found["failures"] == {
        "count": 0,
        "by_stage": {},
        "by_kind": {},
        "by_feature": {},
        "groups": [],
        "groups_not_listed": 0,
    }
    (row,) = found["sample_rows"]
    assert (row["sample_id"], row["window"], row["start_s"]) == ("clips/one.mp4", 0, None)
    assert row["a_passthrough_column_with_a_name_of_fifty_characters"] == "x" * 500
    assert row["when"] == "2026-01-01 00:00:00.000000001"
    assert (row["raw"], row["nan"], row["infinite"], row["nothing"]) == ("AP8=", None, [None, 1.5], None)
    assert (row["words"], row["place"], row["flag"]) == (["one", None], {"x": 1.5, "when": None}, True)
    assert row["vector"] == np.linspace(0, 1, 512).astype(np.float32).tolist()
    assert np.shape(row["f_tokens"]) == (2, 4)
    assert "run_id" not in row


def test_columns_choose_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _odd(tmp_path)
    read = list[Any]()
    batches = datasets.Dataset.batches

    def recorded(self: datasets.Dataset, columns: Any = None, **options: Any) -> Any:
        read.append(columns)
        return batches(self, columns, **options)

    monkeypatch.setattr(datasets.Dataset, "batches", recorded)
    chosen = ["flag, f_grid", "run_id", "flag"]
    text = _printed(describe.show, str(tmp_path), 1, columns=chosen)
    assert text.split("row 1\n")[1] == f'  flag: true\n  f_grid: [2, 1, 1] 3 x int32\n  run_id: "{RUN}"\n'
    assert read == [["f_embedding"], ["flag", "f_grid", "run_id"]]  # the first is read to count the rows of the feature
    assert describe.document(str(tmp_path), 1, chosen)["sample_rows"] == [
        {"flag": True, "f_grid": [2, 1, 1], "run_id": RUN}
    ]
    for call in (
        lambda: describe.document(str(tmp_path), 0, ["flag,nope"]),
        lambda: describe.show(str(tmp_path), 0, Console(file=io.StringIO()), ["nope"]),
    ):
        with pytest.raises(ConfigError, match=r"^--columns: there is no column 'nope'; one of: sample_id, window, "):
            call()


def test_a_column_may_have_a_comma(tmp_path: Path) -> None:
    table = rows(["a"], {}).append_column("x,y", pa.array([7]))
    _dataset(tmp_path, table, {"f": LINEAGE}, [pa.field("x,y", pa.int64())])
    assert describe.document(str(tmp_path), 1, ["x,y"])["sample_rows"] == [{"x,y": 7}]


def test_rows_of_a_feature_are_counted_by_its_cheapest_column(tmp_path: Path) -> None:
    for part, emit in (("embedding", ["embedding", "tokens"]), ("grid", ["tokens"])):
        _dataset(tmp_path / part, rows(["a", "b", "c"], {1: "nan"}), {"f": {**LINEAGE, "emit": emit}}, [])
        found = datasets.open(str(tmp_path / part))
        assert describe.document(str(tmp_path / part), 0)["features"]["f"]["rows"] == found.num_rows == 2


def test_failures_are_counted_over_all_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.dataset.reader._FAILURE_BATCH_ROWS", 2)
    names = [f"s{i}" for i in range(5)]
    night(tmp_path / "v1", RUNS[1], names, dict.fromkeys(range(5), "corrupt"))
    night(tmp_path / "v1", RUNS[2], ["a", "t"], {0: "corrupt", 1: "missing"})
    text = _printed(describe.show, str(tmp_path), 0)
    assert text.endswith(
        "failures\n"
        "  6 corrupt · stage decode · feature f\n    s0: m\n"
        "  1 missing · stage decode · feature f\n    t: m\n"
    )
    failures = describe.document(str(tmp_path), 0)["failures"]
    assert (failures["count"], failures["by_kind"]) == (7, {"corrupt": 6, "missing": 1})
    assert (failures["by_stage"], failures["by_feature"]) == ({"decode": 7}, {"f": 7})
    assert [one["count"] for one in failures["groups"]] == [6, 1]
    assert failures["groups"][1]["example"] == {"sample_id": "t", "message": "m"}
    monkeypatch.setattr("pipeline.dataset.describe._MAX_GROUPS", 1)
    assert _printed(describe.show, str(tmp_path), 0).endswith("    s0: m\n  1 of 1 further kind\n")
    failures = describe.document(str(tmp_path), 0)["failures"]
    assert (len(failures["groups"]), failures["groups_not_listed"], failures["by_kind"]["missing"]) == (1, 1, 1)


def test_an_example_is_of_one_failure(tmp_path: Path) -> None:
    """It does not combine the id of one failure with the message of another."""
    night(tmp_path / "v1", RUNS[1], ["z"], {0: "corrupt"})
    night(tmp_path / "v1", RUNS[2], ["a"], {0: "corrupt"})
    (group,) = describe.document(str(tmp_path), 0)["failures"]["groups"]
    assert group["example"] == {"sample_id": "z", "message": "m"}
