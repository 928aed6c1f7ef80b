"""A dataset that plain pyarrow wrote in the documented layout is read as it was written."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline import dataset as datasets
from pipeline.core.errors import ConfigError
from tests.dataset.reader_fixtures import FAILED, ROWS, RUN, SCHEMA, D, write
from tests.support import duck


def same(value: Any, expected: Any) -> None:
    """Compares a value of a torch row with the Python value that was written."""
    import torch

    if isinstance(expected, list):
        assert isinstance(value, torch.Tensor)
        assert value.tolist() == expected
    else:
        assert value == expected
        assert type(value) is type(expected)


def test_versions_and_snapshots(tmp_path: Path) -> None:
    write(str(tmp_path / "v1"), (10,), created="2026-03-01T00:00:00+00:00")
    write(str(tmp_path / "v2"), (5,), created="2026-01-01T00:00:00+00:00")
    write(str(tmp_path / "v2"), (7, 2), snapshot=2, created="2026-02-01T00:00:00+00:00")
    (tmp_path / "notes").mkdir()
    (tmp_path / "v2" / "_snapshots" / "00000003.json.abc.tmp").write_text("{")
    assert datasets.open(str(tmp_path)).num_rows == 10
    assert datasets.open(str(tmp_path), version="v2").num_rows == 9
    assert datasets.open(str(tmp_path / "v2") + "/").num_rows == 9
    assert datasets.open(str(tmp_path / "v2"), snapshot=1).num_rows == 5
    assert datasets.open(str(tmp_path / "v2"), version="v2").num_rows == 9
    with pytest.raises(ConfigError, match=r"version: there is no version 'v9'.*one of: v1, v2"):
        datasets.open(str(tmp_path), version="v9")
    with pytest.raises(ConfigError, match=r"version: .*folder of one version, not 'v1'"):
        datasets.open(str(tmp_path / "v2"), version="v1")
    with pytest.raises(ConfigError, match=r"snapshot: there is no snapshot 4.*one of: 1, 2"):
        datasets.open(str(tmp_path / "v2"), snapshot=4)


def test_no_dataset(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(ConfigError, match=r"path: .*holds no dataset"):
            datasets.open(str(path))
    with pytest.raises(ConfigError, match=r"path: cannot read 'nosuchscheme://x'"):
        datasets.open("nosuchscheme://x")
    root = write(str(tmp_path / "v1"))
    commit = tmp_path / "v1" / "_snapshots" / "00000001.json"
    commit.write_text(commit.read_text().replace('"contract": 1', '"contract": 3'))
    with pytest.raises(ConfigError, match=r"path: .*contract 3, this reader knows 2"):
        datasets.open(root)
    commit.write_text("{broken")
    with pytest.raises(ConfigError, match=r"path: .*00000001\.json' is not JSON .*; restore the file"):
        datasets.open(root)


def test_a_run_without_rows(tmp_path: Path) -> None:
    dataset = datasets.open(write(str(tmp_path / "v1"), ()))
    assert dataset.to_arrow().to_pylist() == []
    assert list(dataset.batches()) == []
    assert list(dataset.to_torch()) == []
    assert list(dataset.features) == ["photo", "caption", "sound"]
    assert len(dataset.failures()) == 1


def test_every_value_comes_back(out: Path) -> None:
    dataset = datasets.open(str(out))
    table = dataset.to_arrow()
    assert table.schema.equals(SCHEMA)
    assert table.to_pylist() == ROWS
    assert pq.read_table(out / "v1" / "data").select(SCHEMA.names).to_pylist() == ROWS


def test_columns_and_filters(out: Path) -> None:
    dataset = datasets.open(str(out))
    names = ["sound_tokens", "sample_id"]
    assert dataset.to_arrow(names).to_pylist() == [{name: one[name] for name in names} for one in ROWS]
    both = pc.field("photo_embedding").is_valid() & (pc.field("label") == "l1")
    expected = [{"sample_id": one["sample_id"]} for one in ROWS if one["photo_embedding"] and one["label"] == "l1"]
    assert dataset.to_arrow(["sample_id"], both).to_pylist() == expected
    for size in (1, 3, 100):
        batches = list(dataset.batches(["sample_id"], both, batch_size=size))
        assert max(len(batch) for batch in batches) <= size
        assert min(len(batch) for batch in batches) > 0
        assert [one for batch in batches for one in batch.to_pylist()] == expected
    for read in (dataset.to_arrow, dataset.batches, dataset.to_torch):
        with pytest.raises(ConfigError, match=r"columns: there is no column 'nope'; one of: sample_id, window"):
            read(["nope"])
    with pytest.raises(ConfigError, match=r"filter: .*nope"):
        dataset.to_arrow(["sample_id"], pc.field("nope") == 1)
    with pytest.raises(ConfigError, match=r"filter: "):
        dataset.batches(["sample_id"], pc.field("label") > 1)


def test_only_shards_that_the_snapshot_names_are_read(tmp_path: Path) -> None:
    dataset = datasets.open(write(str(tmp_path / "v1"), (10, 4)))
    (tmp_path / "v1" / "data" / "uncommitted.parquet").write_bytes(b"PAR1")
    assert len(dataset.to_arrow()) == 14
    (tmp_path / "v1" / "data" / f"{RUN}-001.parquet").unlink()
    fresh = datasets.open(str(tmp_path / "v1"))
    for read in (dataset.to_arrow, fresh.to_arrow, lambda: list(dataset.batches()), lambda: list(dataset.to_torch())):
        with pytest.raises(ConfigError, match=rf"path: a shard of .* is gone .*{RUN}-001\.parquet"):
            read()


def test_other_readers_see_the_same(out: Path) -> None:
    import datasets as huggingface
    import polars

    glob = f"{out}/v1/data/*.parquet"
    _, found = duck.query(f"select * from '{glob}' order by sample_id")
    assert [{name: _lists(value) for name, value in zip(SCHEMA.names, one, strict=True)} for one in found] == ROWS
    frame = polars.read_parquet(glob)
    assert [{name: _lists(value) for name, value in one.items()} for one in frame.to_dicts()] == ROWS
    loaded = huggingface.load_dataset(
        "parquet", data_files=glob, split="train", cache_dir=str(out / "_cache"), keep_in_memory=True
    )
    assert loaded.to_list() == ROWS


def _lists(value: Any) -> Any:
    """Converts nested sequences of any type to lists."""
    return [_lists(one) for one in value] if isinstance(value, list | tuple) else value


def test_only_the_row_groups_that_are_needed_are_read(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[int, list[int]]] = []
    original = pq.ParquetFile.iter_batches

    def spy(self: pq.ParquetFile, *args: Any, row_groups: list[int], **options: Any) -> Any:
        read.append((self.metadata.num_rows, row_groups))
        return original(self, *args, row_groups=row_groups, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    dataset = datasets.open(str(out))
    assert [one["sample_id"] for one in dataset.to_torch(["sample_id"], 1, 3)] == [f"s{i:03}" for i in range(9, 19)]
    assert read == [(10, [2]), (1, [0]), (18, [0]), (18, [1])]


def test_a_filter_reads_its_own_columns_only(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other columns may have gigabytes of tokens."""
    read: set[tuple[str, ...]] = set()
    batches, whole = pq.ParquetFile.iter_batches, pq.ParquetFile.read

    def spy(original: Any) -> Any:
        def call(self: pq.ParquetFile, *args: Any, columns: list[str], **options: Any) -> Any:
            read.add(tuple(columns))
            return original(self, *args, columns=columns, **options)

        return call

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy(batches))
    monkeypatch.setattr(pq.ParquetFile, "read", spy(whole))
    dataset, keep = datasets.open(str(out)), (pc.field("score") > 5) & pc.field("photo_grid").is_valid()
    wanted = [one["sample_id"] for one in ROWS if (one["score"] or 0) > 5 and one["photo_grid"] is not None]
    assert dataset.to_arrow(["sample_id"], keep)["sample_id"].to_pylist() == wanted
    found = pa.Table.from_batches(dataset.batches(["sample_id"], keep, 4))
    assert found["sample_id"].to_pylist() == wanted
    assert found.column_names == ["sample_id"]
    assert read == {("sample_id", "score", "photo_grid")}


def test_it_pickles(out: Path) -> None:
    dataset = datasets.open(str(out))
    dataset.collate([])
    again = pickle.loads(pickle.dumps(dataset))
    assert again.to_arrow(["sample_id"]).equals(dataset.to_arrow(["sample_id"]))
    rows = pickle.loads(pickle.dumps(dataset.to_torch(["sample_id"], 1, 2)))
    assert len(list(rows)) == 15


def test_memory() -> None:
    fsspec.filesystem("memory").store.clear()
    write("memory://out/v1")
    dataset = datasets.open("memory://out")
    assert dataset.to_arrow().to_pylist() == ROWS
    assert [one["sample_id"] for one in dataset.to_torch(["sample_id"], 1, 2)] == [f"s{i:03}" for i in range(14, 29)]
    with pytest.raises(ConfigError, match="holds no dataset"):
        datasets.open("memory://elsewhere")


def test_s3(s3: Any) -> None:
    write("s3://corpus/out/v1")
    dataset = datasets.open("s3://corpus/out")
    assert dataset.to_arrow().to_pylist() == ROWS
    assert dataset.failures().to_pylist() == FAILED
    assert sum(len(batch) for batch in dataset.batches(["label"], pc.field("label") == "l0")) == 15
    assert [one["sample_id"] for one in dataset.to_torch(["sample_id"], 1, 2)] == [f"s{i:03}" for i in range(14, 29)]
    with pytest.raises(ConfigError, match="holds no dataset"):
        datasets.open("s3://corpus/elsewhere")


def test_ray_reads_it_and_batches_accept_nulls(out: Path, ray_session: None) -> None:
    dataset = datasets.open(str(out))
    rows = dataset.to_ray()
    assert rows.count() == 29
    columns = ["sample_id", "window", "score", "photo_tokens", "caption_embedding", "sound_times", "photo_grid"]
    for collate in (dataset.ray_collate(), dataset.collate):
        seen = []
        for batch in dataset.to_ray(columns).iter_torch_batches(batch_size=8, collate_fn=collate):
            assert batch["caption_embedding"].shape == (len(batch["sample_id"]), D)
            for i, name in enumerate(batch["sample_id"]):
                seen.append(name)
                one = ROWS[int(name[1:])]
                for column in ("photo_tokens", "sound_times"):
                    assert bool(batch[f"{column}_valid"][i]) == (one[column] is not None)
                    assert batch[column][i][batch[f"{column}_mask"][i]].tolist() == (one[column] or [])
                assert batch["caption_embedding"][i].tolist() == (one["caption_embedding"] or [0.0] * D)
                assert batch["photo_grid"][i].tolist() == (one["photo_grid"] or [0, 0, 0])
                assert bool(batch["score_valid"][i]) == (one["score"] is not None)
                assert batch["score"][i] == (one["score"] or 0)
        assert sorted(seen) == [one["sample_id"] for one in ROWS]
