"""Cards: where they are written, what reads them, and that the dataset stays as it is."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from pipeline import dataset, export
from pipeline.core.errors import ConfigError, StorageError
from pipeline.dataset import maintenance
from tests.dataset.loading import written
from tests.export import exported
from tests.export.card import hostile
from tests.support.dataset_fixtures import RUNS, ids, night

NAMES = {"README.md", "croissant.json"}


@pytest.fixture
def path(tmp_path: Path) -> str:
    return written.write(tmp_path / "ds", [written.row(number) for number in range(40)])


def _tree(folder: Path) -> dict[str, str]:
    files = (one for one in folder.rglob("*") if one.is_file())
    return {str(one.relative_to(folder)): hashlib.sha256(one.read_bytes()).hexdigest() for one in files}


def _records(folder: Path) -> list[dict[str, Any]]:
    """Returns the rows as `mlcroissant` reads them."""
    import mlcroissant

    return list(mlcroissant.Dataset(jsonld=folder / "croissant.json").records("rows"))


def _check_records(found: list[dict[str, Any]], path: str) -> None:
    """Compares what `mlcroissant` read with the rows of the dataset. It gives text as bytes."""
    expected = dataset.open(path).to_arrow().to_pylist()
    assert len(found) == len(expected)
    for record, row in zip(found, expected, strict=True):
        assert {name.partition("/")[2] for name in record} == set(row)
        for name, value in row.items():
            one = record[f"rows/{name}"]
            if isinstance(value, str):
                assert one == value.encode()
            elif isinstance(value, list):
                np.testing.assert_array_equal(np.array(one), np.array(value))
            else:
                assert one == value


def test_it_is_beside_the_data_which_stays_as_it_is(path: str) -> None:
    out, before = Path(path), _tree(Path(path))
    done = export.write_card(path)
    after = _tree(out)
    assert {name: digest for name, digest in after.items() if name not in NAMES} == before
    assert set(after) - set(before) == NAMES
    assert (done.output, done.rows, done.shards, done.warnings) == (path, 40, 3, ())
    assert pq.read_table(out / "v1").num_rows == ds.dataset(out / "v1", format="parquet").count_rows() == 40
    assert dataset.open(path).num_rows == 40


def test_mlcroissant_reads_the_rows(path: str, tmp_path: Path) -> None:
    export.write_card(path)
    _check_records(_records(Path(path)), path)
    moved = tmp_path / "elsewhere"
    shutil.move(path, moved)
    _check_records(_records(moved), str(moved))


def test_datasets_reads_the_rows_by_the_header(path: str, tmp_path: Path) -> None:
    export.write_card(path)
    code = "import sys; from datasets import load_dataset; r = load_dataset(sys.argv[1], split='train'); print(len(r))"
    code += (
        "; print(r.features['photo_tokens']); print(r.with_format('arrow')[:]['number'].to_pylist() == [*range(40)])"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", code, path]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["40", "List(List(Value('float16'), length=3))", "True"]


def test_a_folder_for_publication(path: str, tmp_path: Path) -> None:
    """The card names files relative to the folder that holds the version, wherever it is written."""
    out, before = tmp_path / "publication", _tree(Path(path))
    assert export.write_card(path, str(out)).output == str(out)
    assert {one.name for one in out.iterdir()} == NAMES
    assert _tree(Path(path)) == before
    shutil.copytree(Path(path) / "v1" / "data", out / "v1" / "data")
    _check_records(_records(out), path)


def test_files_that_are_there_are_not_replaced(path: str) -> None:
    readme = Path(path) / "README.md"
    readme.write_text("mine")
    with pytest.raises(ConfigError, match=r"--out: '.*README.md' is there already; --overwrite to replace it"):
        export.write_card(path)
    assert readme.read_text() == "mine"
    assert not (Path(path) / "croissant.json").exists()
    export.write_card(path, overwrite=True)
    assert readme.read_text().startswith("---\n")
    export.write_card(path, overwrite=True)
    with pytest.raises(ConfigError, match=r"is there already"):
        export.write_card(path)


def test_a_link_in_its_place_is_replaced_and_not_followed(path: str, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (Path(path) / "README.md").symlink_to(tmp_path / "precious")
    with pytest.raises(Exception, match=r"README.md"):
        export.write_card(path)
    export.write_card(path, overwrite=True)
    assert (tmp_path / "precious").read_text() == "precious"


def test_it_is_never_in_a_version(path: str) -> None:
    """pyarrow and Ray would read it as Parquet."""
    for out in (f"{path}/v1", f"{path}/v1/data", f"{path}/v1/new"):
        with pytest.raises(ConfigError, match=r"--out: .* is in the dataset; a folder outside of it"):
            export.write_card(path, out)
    with pytest.raises(ConfigError, match="is the folder of one version; give --out FOLDER, or the dataset"):
        export.write_card(f"{path}/v1")
    assert {one.name for one in Path(path).iterdir()} == {"v1"}
    export.write_card(f"{path}/v1", f"{path}-card")


def test_deleted_rows_are_not_shown_to_plain_readers(tmp_path: Path) -> None:
    path = str(tmp_path / "ds")
    night(tmp_path / "ds" / "v1", RUNS[1], ["a", "b", "c"])
    export.write_card(path, str(tmp_path / "first"))
    night(tmp_path / "ds" / "v1", RUNS[2], ["b"], drops={f"data/{RUNS[1]}-000000-000.parquet": [1]})
    with pytest.raises(ConfigError, match="--snapshot: 1 rows that snapshot 2 deletes are still in its files"):
        export.write_card(path)
    maintenance.compact(path)
    export.write_card(path)
    assert sorted(one["rows/sample_id"].decode() for one in _records(tmp_path / "ds")) == ids(path) == ["a", "b", "c"]
    with pytest.raises(ConfigError, match=r"--snapshot: .*snapshot 1 is not in data/ any more; the newest snapshot"):
        export.write_card(path, str(tmp_path / "old"), snapshot=1)
    assert not (tmp_path / "old").exists()


def test_a_dataset_without_rows(tmp_path: Path) -> None:
    path = written.write(tmp_path / "ds", [], shards=0)
    done = export.write_card(path)
    assert len(done.warnings) == 2
    import mlcroissant
    from huggingface_hub import DatasetCard

    assert mlcroissant.Dataset(jsonld=tmp_path / "ds" / "croissant.json").metadata.record_sets == []
    assert "configs" not in DatasetCard.load(tmp_path / "ds" / "README.md").data.to_dict()


def test_a_hostile_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rows are read by all, and no text of it has an effect or shows a secret."""
    path = hostile.write(tmp_path / "ds", monkeypatch)
    export.write_card(path)
    found = _records(tmp_path / "ds")
    assert len(found) == 7
    own = {f"rows/{name}" for name in written.SCHEMA.names}
    assert [value for name, value in found[3].items() if name not in own] == [b"v3"] * len(hostile.COLUMNS)
    for name in NAMES:
        text = (tmp_path / "ds" / name).read_text()
        assert hostile.SECRET not in text
        assert text.replace("\n", "").isprintable()


def test_s3(tmp_path: Path, s3: Any) -> None:
    written.write(tmp_path / "ds", [written.row(number) for number in range(5)])
    s3.put(str(tmp_path / "ds"), "corpus/ds", recursive=True)
    done = export.write_card("s3://corpus/ds")
    assert done.output == "s3://corpus/ds"
    s3.invalidate_cache()
    s3.get("corpus/ds", str(tmp_path / "copy"), recursive=True)
    _check_records(_records(tmp_path / "copy"), str(tmp_path / "ds"))
    with pytest.raises(ConfigError, match="is there already"):
        export.write_card("s3://corpus/ds")


@pytest.mark.parametrize("name", ["datasets", "mlcroissant"])
def test_a_library_that_is_not_installed(path: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf"'{name}' .*; pip install 'tessera\[export\]'"):
        export.write_card(path)
    assert {one.name for one in Path(path).iterdir()} == {"v1"}


def test_rows_of_every_kind(tmp_path: Path) -> None:
    """Columns that Croissant has no type for are left out, and named."""
    path = exported.write(tmp_path / "ds", 20)
    done = export.write_card(path)
    assert done.warnings == ("Croissant has no type for columns, which croissant.json leaves out: blob",)
    (record, *_) = _records(tmp_path / "ds")
    assert {"rows/tags", "rows/when", "rows/half", "rows/label"} <= set(record)


def test_a_dataset_that_cannot_be_written(path: str, tmp_path: Path, server: str) -> None:
    with pytest.raises(StorageError, match=r"cannot write 'http.*/ds/README.md'"):
        export.write_card(f"{server}/ds")
    export.write_card(f"{server}/ds", str(tmp_path / "card"))
    assert {one.name for one in (tmp_path / "card").iterdir()} == NAMES


def test_a_file_system_that_only_reads(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of fsspec raise this error."""
    fs = fsspec.filesystem("memory")
    fs.put(path, "/readonly", recursive=True)

    def refuse(*args: object, **options: object) -> None:
        raise NotImplementedError

    with monkeypatch.context() as patch:
        patch.setattr(type(fs), "pipe_file", refuse)
        with pytest.raises(ConfigError, match="--out: 'memory://readonly' cannot be written; give --out FOLDER"):
            export.write_card("memory://readonly")
    fs.rm("/readonly", recursive=True)
