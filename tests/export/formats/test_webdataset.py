"""Tar files: hostile names, repeated rows, nulls, the same bytes each time."""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import subprocess
import tarfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline import export
from pipeline.core.errors import ConfigError
from pipeline.export import ShardLimits
from tests.dataset.loading import written
from tests.export import exported
from tests.export.formats.test_keys import HOSTILE


def _members(out: Path) -> list[tarfile.TarInfo]:
    found = []
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            found += tar.getmembers()
    return found


def test_hostile_ids_are_files_below_the_folder(tmp_path: Path) -> None:
    ids = [one for one in HOSTILE if len(one) < 1000]
    rows = [{**written.row(i + 1), "sample_id": one} for i, one in enumerate(ids)]
    out = tmp_path / "out"
    export.export_dataset(written.write(tmp_path / "ds", rows), str(out), "webdataset")
    members = _members(out)
    assert len({one.name for one in members}) == len(members)
    assert all(one.isreg() and "/" not in one.name and one.mode == 0o644 for one in members)
    found = exported.samples(str(out))
    assert [one["json"]["sample_id"] for one in found] == ids
    assert len({one["__key__"] for one in found}) == len(ids)
    target = tmp_path / "extracted"
    target.mkdir()
    subprocess.run(["tar", "-xf", str(out / "shard-000000.tar")], cwd=target, check=True)
    assert {one.name for one in target.iterdir()} == {one.name for one in members}
    assert not (tmp_path / "etc").exists()


def test_nulls_have_no_member_and_are_null_in_the_json(tmp_path: Path) -> None:
    path = exported.write(tmp_path / "ds", 30)
    export.export_dataset(path, str(tmp_path / "out"), "webdataset")
    for sample, row in zip(exported.samples(str(tmp_path / "out")), exported.stored(path), strict=True):
        for column in exported.ARRAYS:
            assert (f"{column}.npy" in sample) == (row[column] is not None)
            assert (column in sample["json"]) == (row[column] is None)
        assert ("blob.bin" in sample) == (row["blob"] is not None)
        assert sample["json"].get("blob") is None


def test_arrays_are_those_of_numpy_alone(tmp_path: Path) -> None:
    """Read without `webdataset`: by tarfile, numpy and json."""
    rows = [written.row(number) for number in (1, 2, 4)]
    export.export_dataset(written.write(tmp_path / "ds", rows, 1), str(tmp_path / "out"), "webdataset")
    with tarfile.open(tmp_path / "out" / "shard-000000.tar") as tar:
        for row in rows:
            key = f"{row['sample_id']}-w0"
            data = tar.extractfile(f"{key}.photo_tokens.npy").read()
            tokens = np.load(io.BytesIO(data), allow_pickle=False)
            np.testing.assert_array_equal(tokens, np.float16(row["photo_tokens"]))
            assert json.load(tar.extractfile(f"{key}.json"))["photo_grid"] == row["photo_grid"]


def test_a_row_that_is_there_twice_keeps_both(tmp_path: Path) -> None:
    rows = [{**written.row(number), "sample_id": one} for number, one in enumerate(["a", "a", "a", "a-w0", "b"])]
    export.export_dataset(written.write(tmp_path / "ds", rows, 1), str(tmp_path / "out"), "webdataset")
    found = exported.samples(str(tmp_path / "out"))
    assert [one["json"]["number"] for one in found] == [0, 1, 2, 3, 4]
    assert [one["__key__"] for one in found] == ["a-w0", "a-w0-x1", "a-w0-x2", "a-w0-w0", "b-w0"]


def test_two_exports_have_the_same_bytes(tmp_path: Path) -> None:
    path, digests = exported.write(tmp_path / "ds", 40), []
    for name in ("a", "b"):
        export.export_dataset(path, str(tmp_path / name), "webdataset", limits=ShardLimits(15))
        shards = sorted((tmp_path / name).glob("*.tar"))
        digests.append([hashlib.sha256(one.read_bytes()).hexdigest() for one in shards])
    assert digests[0] == digests[1]
    assert len(digests[0]) == 3


def test_columns_that_differ_in_case_only(tmp_path: Path) -> None:
    schema = pa.schema([*written.SCHEMA, pa.field("Data", pa.binary()), pa.field("data", pa.binary())])
    rows = [{**written.row(1), "Data": b"1", "data": b"2"}]
    path = written.write(tmp_path / "ds", rows, 1, schema=schema)
    with pytest.raises(ConfigError, match="--columns: 'Data' and 'data' are one name in a WebDataset"):
        export.export_dataset(path, str(tmp_path / "out"), "webdataset")
    export.export_dataset(path, str(tmp_path / "out"), "webdataset", ["Data"])
    (sample,) = exported.samples(str(tmp_path / "out"))
    assert sample["data.bin"] == b"1"


def test_names_of_columns_that_are_no_names_of_files(tmp_path: Path) -> None:
    names = ["../x", "_hidden", "a.b", "json", "x\ny", "n" * 300, "n" * 301]
    schema = pa.schema([*written.SCHEMA, *(pa.field(name, pa.binary()) for name in names)])
    rows = [{**written.row(1), **{name: name.encode() for name in names}}]
    path = written.write(tmp_path / "ds", rows, 1, schema=schema)
    export.export_dataset(path, str(tmp_path / "out"), "webdataset")
    members = [one.name for one in _members(tmp_path / "out")]
    assert all("/" not in one and "\n" not in one and len(one) < 255 for one in members)
    (sample,) = exported.samples(str(tmp_path / "out"))
    assert {value.decode() for name, value in sample.items() if name.endswith(".bin")} == set(names)


def test_a_null_in_a_vector_is_one_line(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{**written.row(1), "photo_embedding": [1.0, None, 2.0, 3.0]}]
    path = written.write(tmp_path / "ds", rows, 1)
    with pytest.raises(ConfigError, match="columns: column 'photo_embedding' cannot be read"):
        export.export_dataset(path, str(tmp_path / "out"), "webdataset")


def test_values_that_json_does_not_have(tmp_path: Path) -> None:
    schema = pa.schema(
        [
            *written.SCHEMA,
            pa.field("pair", pa.struct([pa.field("raw", pa.binary()), pa.field("day", pa.date32())])),
            pa.field("price", pa.decimal128(9, 2)),
            pa.field("nanos", pa.timestamp("ns")),
        ]
    )
    pair = {"raw": b"\x00\xff", "day": datetime.date(1970, 1, 2)}
    row = {**written.row(1), "pair": pair, "price": Decimal("12.50"), "nanos": 1}
    path = written.write(tmp_path / "ds", [row], 1, schema=schema)
    export.export_dataset(path, str(tmp_path / "out"), "webdataset")
    (sample,) = exported.samples(str(tmp_path / "out"))
    assert sample["json"]["pair"] == {"raw": "AP8=", "day": "1970-01-02"}
    assert sample["json"]["price"] == "12.50"
    assert sample["json"]["nanos"] == "1970-01-01 00:00:00.000000001"
