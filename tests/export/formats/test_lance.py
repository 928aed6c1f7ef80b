"""Lance: an index over embeddings, ragged vectors, widths that a footer claims, settings of buckets."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline import export
from pipeline.core.errors import ConfigError
from pipeline.export import ShardLimits
from pipeline.export.formats import lance as lance_format
from pipeline.storage.settings import S3Config, StorageConfig
from tests.dataset.loading import written
from tests.export import exported


def _many(rows: int) -> list[dict[str, Any]]:
    vectors = np.random.default_rng(0).standard_normal((rows, written.D)).astype(np.float32)
    return [{**written.row(number), "photo_embedding": vectors[number].tolist()} for number in range(rows)]


def test_lance_indexes_embeddings(tmp_path: Path) -> None:
    import lance

    rows, out = _many(600), str(tmp_path / "out")
    path = written.write(tmp_path / "ds", rows)
    done = export.export_dataset(path, out, "lance", ["sample_id", "photo_embedding"], limits=ShardLimits(200))
    assert done.warnings == ()
    found = lance.dataset(out)
    found.create_index("photo_embedding", "IVF_PQ", num_partitions=2, num_sub_vectors=2)
    query = np.float32(rows[77]["photo_embedding"])
    near = lance.dataset(out).to_table(nearest={"column": "photo_embedding", "q": query, "k": 5, "refine_factor": 20})
    assert near["sample_id"].to_pylist()[0] == "s00077"


def test_vectors_of_different_lengths_stay_lists(tmp_path: Path) -> None:
    import lance

    rows, out = _many(100), tmp_path / "out"
    rows[90]["photo_embedding"] = [1.0, 2.0]
    path = written.write(tmp_path / "ds", rows)
    done = export.export_dataset(path, str(out), "lance", limits=ShardLimits(20))
    assert done.warnings == ("vectors of 'photo_embedding' have different lengths, so that Lance cannot index them",)
    found = lance.dataset(str(out))
    assert pa.types.is_list(found.schema.field("photo_embedding").type)
    assert exported.read_lance(str(out)) == exported.stored(path)
    assert len(list((out / "data").iterdir())) == len(found.get_fragments()) == 5, "files of the first attempt are left"


def test_vectors_are_null_or_empty(tmp_path: Path) -> None:
    import lance

    for number, vector in enumerate((None, [])):
        rows = [{**written.row(1), "photo_embedding": vector} for _ in range(3)]
        path, out = written.write(tmp_path / f"ds{number}", rows, 1), str(tmp_path / f"out{number}")
        export.export_dataset(path, out, "lance")
        assert exported.read_lance(out) == exported.stored(path)
        assert pa.types.is_list(lance.dataset(out).schema.field("photo_embedding").type)


def test_a_width_that_a_footer_claims_takes_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2**28 values for each of 99 nulls would be 106 GB."""
    features = {"photo": {**written.FEATURES["photo"], "dim": 1 << 28}, "words": written.FEATURES["words"]}
    monkeypatch.setattr(written, "FEATURES", features)
    rows = [{**written.row(number), "photo_embedding": None} for number in range(99)]
    rows.append({**written.row(1), "photo_embedding": [1.0, 2.0, 3.0]})
    path = written.write(tmp_path / "ds", rows)
    export.export_dataset(path, str(tmp_path / "out"), "lance", ["photo_embedding"])
    assert exported.read_lance(str(tmp_path / "out")) == exported.stored(path, ["photo_embedding"])


def test_batches_of_wide_vectors_are_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lance_format, "_BATCH_BYTES", 100)  # six vectors of four float32
    path = exported.write(tmp_path / "ds", 50)
    sizes: list[int] = []
    real = lance_format._Source._converted
    monkeypatch.setattr(lance_format._Source, "_converted", lambda self, b: (sizes.append(len(b)), real(self, b))[1])
    export.export_dataset(path, str(tmp_path / "out"), "lance")
    assert sum(sizes) == 50
    assert max(sizes) == 6
    assert exported.read_lance(str(tmp_path / "out")) == exported.stored(path)


def test_metadata_of_fields_has_no_effect(tmp_path: Path) -> None:
    """Lance would store the column as blobs that may be in other files."""
    blob = pa.field("blob", pa.large_binary(), metadata={"lance-encoding:blob": "true"})
    ext = pa.field("ext", pa.large_binary(), metadata={"ARROW:extension:name": "lance.blob.v2"})
    schema = pa.schema([*written.SCHEMA, blob, ext])
    rows = [{**written.row(1), "blob": b"/etc/passwd", "ext": b"file:///etc/passwd"}]
    path = written.write(tmp_path / "ds", rows, 1, schema=schema)
    export.export_dataset(path, str(tmp_path / "out"), "lance")
    (found,) = exported.read_lance(str(tmp_path / "out"))
    assert (found["blob"], found["ext"]) == (b"/etc/passwd", b"file:///etc/passwd")


def test_a_column_that_lance_has_no_type_for(tmp_path: Path) -> None:
    schema = pa.schema([*written.SCHEMA, pa.field("price", pa.decimal32(5, 1))])
    path = written.write(tmp_path / "ds", [{**written.row(1), "price": Decimal("1.5")}], 1, schema=schema)
    with pytest.raises(ConfigError, match=r"--format: Lance cannot store the rows .*; other --columns"):
        export.export_dataset(path, str(tmp_path / "out"), "lance")
    assert {one.name for one in tmp_path.iterdir()} == {"ds"}


def test_where_lance_cannot_write(tmp_path: Path) -> None:
    path = exported.write(tmp_path / "ds", 3)
    with pytest.raises(ConfigError, match=r"OUT: Lance cannot write to memory://; a local folder, or one of: s3://"):
        export.export_dataset(path, "memory://x/out", "lance")


def test_settings_of_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    def options(**values: Any) -> dict[str, str]:
        found = StorageConfig(s3={"b": S3Config(**values)})
        monkeypatch.setenv("TESSERA_STORAGE", found.model_dump_json())
        return lance_format._storage_options("s3://b/x")

    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    assert options() == {}
    assert options(endpoint_url="http://127.0.0.1:9", region="eu-1", addressing_style="virtual", anonymous=True) == {
        "aws_endpoint": "http://127.0.0.1:9",
        "aws_region": "eu-1",
        "aws_virtual_hosted_style_request": "true",
        "aws_skip_signature": "true",
        "allow_http": "true",
    }
    assert options(endpoint_url="https://x", addressing_style="path") == {
        "aws_endpoint": "https://x",
        "aws_virtual_hosted_style_request": "false",
    }
    with pytest.raises(ConfigError, match="Lance takes no profile of a bucket; set AWS_PROFILE instead"):
        options(profile="p")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert options() == {"allow_http": "true"}
