"""``store.layout: fixed``: embeddings as lists of a fixed size, with nulls among them; the same values for every
reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader

from pipeline import config as configs
from pipeline import dataset, run
from pipeline.core.errors import ConfigError
from pipeline.dataset import maintenance
from tests.end_to_end.test_nights import draw
from tests.support import duck, local_runs

STORES: dict[str, dict[str, str]] = {
    "plain": {},
    "fixed": {"layout": "fixed"},
    "plain16": {"embedding": "float16"},
    "fixed16": {"embedding": "float16", "layout": "fixed"},
}
"""Features with the same values."""
PAIRS = [("plain", "fixed"), ("plain16", "fixed16")]


def extract(folder: Path, models: Path, **stores: dict[str, str]) -> dict[str, Any]:
    feature = {
        "modality": "image",
        "tokenizer": {"kind": "patch"},
        "encoder": {"kind": "clip", "checkpoint": str(models / "clip")},
    }
    raw = {
        "source": {"kind": "files", "path": str(folder / "in")},
        "output": {"path": str(folder / "out")},
        "features": {name: {**feature, "store": store} for name, store in {**STORES, **stores}.items()},
    }
    return run.extract(local_runs.prepare(configs.parse(raw)), show_progress=False)


def vectors(table: pa.Table, name: str) -> dict[str, Any]:
    return dict(zip(table["sample_id"].to_pylist(), table[f"{name}_embedding"].to_pylist(), strict=True))


@pytest.fixture(scope="module")
def made(ray_session: Any, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of seven rows, of which one has no embedding, as if its encoder had failed."""
    folder = tmp_path_factory.mktemp("layout")
    for i in range(7):
        draw(folder, f"s{i}", 30 * i)
    extract(folder, models)
    (shard,) = (folder / "out" / "v1" / "data").iterdir()
    table = pq.read_table(shard)
    for name in STORES:
        at = table.schema.get_field_index(f"{name}_embedding")
        field, values = table.schema.field(at), table.column(at).to_pylist()
        table = table.set_column(at, field, pa.array([*values[:3], None, *values[4:]], field.type))
    pq.write_table(table, shard)
    return folder


@pytest.mark.parametrize(("plain", "fixed"), PAIRS)
def test_every_reader_reads_the_same(made: Path, plain: str, fixed: str) -> None:
    found = dataset.open(str(made / "out"))
    width, value = found.features[fixed].dim, pa.float16() if "16" in plain else pa.float32()
    assert found.schema.field(f"{plain}_embedding").type == pa.list_(value)
    assert found.schema.field(f"{fixed}_embedding").type == pa.list_(value, width)
    expected = vectors(found.to_arrow(), plain)
    assert sum(one is None for one in expected.values()) == 1
    assert vectors(found.to_arrow(), fixed) == expected
    assert vectors(pa.Table.from_batches(found.batches(batch_size=2)), fixed) == expected
    folder, column = made / "out" / "v1" / "data", f"{fixed}_embedding"
    assert vectors(pq.read_table(folder), fixed) == expected
    frame = pd.read_parquet(folder)
    rows = [
        zip(frame["sample_id"], frame[column], strict=True),
        polars.read_parquet(str(folder / "*.parquet")).select("sample_id", column).rows(),
        duck.query(f"select sample_id, {column} from '{folder}/*.parquet'")[1],
    ]
    for one in rows:
        assert {name: None if vector is None else list(vector) for name, vector in one} == expected


def test_tensors(made: Path) -> None:
    found = dataset.open(str(made / "out"))
    names = [f"{name}_embedding" for name in STORES]
    for batch_size in (None, 3):
        for one in DataLoader(found.to_torch(names, batch_size=batch_size), batch_size=None):
            for plain, fixed in PAIRS:
                ours = {key.replace(fixed, plain): value for key, value in one.items() if key.startswith(f"{fixed}_")}
                theirs = {key: value for key, value in one.items() if key.startswith(f"{plain}_")}
                assert ours.keys() == theirs.keys() != {}
                for key, value in theirs.items():
                    assert torch.equal(ours[key], value) if value is not None else ours[key] is None
    batch = found.to_arrow(["fixed_embedding"]).slice(2, 3)
    assert found.collate(batch)["fixed_embedding"][1].abs().max() == 0  # the null


def test_it_goes_on_in_its_layout(made: Path, models: Path, ray_session: Any) -> None:
    before = vectors(dataset.open(str(made / "out")).to_arrow(), "fixed")
    draw(made, "s7", 250)
    assert extract(made, models)["samples"] == 1
    maintenance.compact(str(made / "out"))
    after = dataset.open(str(made / "out"))
    found = vectors(after.to_arrow(), "fixed")
    assert {name: found[name] for name in before} == before
    assert len(found["s7.png"]) == after.features["fixed"].dim
    with pytest.raises(ConfigError, match=r"features\.fixed\.feature\.store\.layout is 'fixed' there, 'list' here"):
        extract(made, models, fixed={})
