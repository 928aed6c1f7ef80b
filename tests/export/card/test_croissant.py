"""croissant.json: accepted by `mlcroissant` without warnings but for what only the user knows."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import mlcroissant
import pyarrow as pa
import pytest

from pipeline import dataset
from pipeline.core.errors import ConfigError
from pipeline.export.card import croissant
from pipeline.export.card.facts import Facts
from tests.dataset import reader_fixtures
from tests.export.card import hostile
from tests.support.dataset_fixtures import RUNS, night


def _metadata(path: str) -> mlcroissant.Metadata:
    document, _ = croissant.render(Facts.of(dataset.open(path)))
    return mlcroissant.Metadata.from_json(ctx=mlcroissant.Context(), json_=json.loads(json.dumps(document)))


def test_what_it_says(tmp_path: Path) -> None:
    reader_fixtures.write(str(tmp_path / "v1"))
    found = _metadata(str(tmp_path))
    warnings = found.ctx.issues.report()
    assert warnings.count("is recommended") == 2
    assert all(one in warnings for one in ("citeAs", "license"))
    assert not found.ctx.issues.errors
    assert found.version == "1.0.0+v1"
    assert found.ctx.is_v1_1()
    assert reader_fixtures.RUN in str(found.description)
    (photo, *_) = found.data_preprocessing_protocol
    assert "model tiny-clip; model type clip" in photo
    assert f"sha256 of the weights {'ab' * 32}; space clip:ab; tokenizer patch" in photo
    (rows,) = found.record_sets
    fields = {field.name: field for field in rows.fields}
    assert list(fields) == dataset.open(str(tmp_path)).schema.names
    assert (fields["photo_embedding"].is_array, fields["photo_embedding"].array_shape) == (True, "-1")
    assert (fields["photo_tokens"].array_shape, fields["photo_tokens"].data_type.__name__) == ("-1,4", "float16")
    assert fields["window"].is_array is None
    assert list(rows.key) == ["rows/sample_id", "rows/window"]


def test_digests_are_those_of_the_files(tmp_path: Path) -> None:
    night(tmp_path / "v1", RUNS[1], ["a", "b"])
    night(tmp_path / "v1", RUNS[2], ["c"])
    files = _metadata(str(tmp_path)).file_objects
    assert len(files) == 2
    for one in files:
        data = (tmp_path / one.content_url).read_bytes()
        assert one.sha256 == hashlib.sha256(data).hexdigest()
        assert one.content_size == f"{len(data)} B"


def test_hostile_texts_are_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = _metadata(hostile.write(tmp_path / "ds", monkeypatch))
    (rows,) = found.record_sets
    columns = [field.source.extract.column for field in rows.fields]
    assert columns[-len(hostile.COLUMNS) :] == [*hostile.COLUMNS]
    ids = [field.id for field in rows.fields]
    assert len(set(ids)) == len(ids)
    assert all(one.startswith("rows/") and one.count("/") == 1 for one in ids)
    text = json.dumps(croissant.render(Facts.of(dataset.open(str(tmp_path / "ds"))))[0])
    assert hostile.SECRET not in text


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (pa.int8(), ("cr:Int8", None)),
        (pa.uint64(), ("cr:UInt64", None)),
        (pa.float16(), ("cr:Float16", None)),
        (pa.bool_(), ("sc:Boolean", None)),
        (pa.large_string(), ("sc:Text", None)),
        (pa.timestamp("ns", "UTC"), ("sc:DateTime", None)),
        (pa.date32(), ("sc:Date", None)),
        (pa.list_(pa.float32(), 768), ("cr:Float32", "768")),
        (pa.list_(pa.list_(pa.float16(), 4)), ("cr:Float16", "-1,4")),
        (pa.list_(pa.string()), ("sc:Text", "-1")),
        (pa.binary(), None),
        (pa.map_(pa.string(), pa.int8()), None),
        (pa.struct([pa.field("a", pa.int8())]), None),
        (pa.decimal128(5), None),
    ],
)
def test_types(kind: pa.DataType, expected: tuple[str, str | None] | None) -> None:
    assert croissant._type(kind) == expected


def test_a_document_that_is_not_accepted() -> None:
    document = {
        "@context": croissant._CONTEXT,
        "@type": "sc:Dataset",
        "name": "x",
        "distribution": [{"@type": "cr:FileObject"}],
    }
    with pytest.raises(ConfigError, match="mlcroissant does not accept the card"):
        croissant._validate(document)
