"""croissant.json: Croissant 1.1 (https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html).

It lists the files of a snapshot with their digests. The rows are one record set, which `mlcroissant` reads one file at
a time if this file is in the folder that holds the version.
"""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa

from pipeline.core.arrow import is_list
from pipeline.core.errors import ConfigError, describe
from pipeline.export.card.facts import Facts, FeatureFacts, text
from pipeline.export.formats.keys import safe_name
from pipeline.export.libraries import library

NAME = "croissant.json"
ROWS = "rows"
"""The record set."""
_FILES = "shards"
_FORMAT = "application/x-parquet"
_LANGUAGE = {"@container": "@language"}
_CR = (
    *("annotation", "arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "excludes", "extract"),
    *("field", "fileObject", "fileProperty", "fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath"),
    *("key", "md5", "parentField", "path", "recordSet", "references", "regex", "repeated", "replace", "samplingRate"),
    *("sdVersion", "separator", "source", "subField", "transform", "unArchive", "value"),
)
"""Terms of Croissant's vocabulary."""
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    **{term: f"cr:{term}" for term in _CR},
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": _LANGUAGE,
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": _LANGUAGE,
    "prov": "http://www.w3.org/ns/prov#",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
}
_TYPES = {
    pa.bool_(): "sc:Boolean",
    pa.string(): "sc:Text",
    pa.large_string(): "sc:Text",
    pa.float16(): "cr:Float16",
    pa.float32(): "cr:Float32",
    pa.float64(): "cr:Float64",
    **{
        getattr(pa, f"{sign.lower()}int{bits}")(): f"cr:{sign}Int{bits}"
        for sign in ("", "U")
        for bits in (8, 16, 32, 64)
    },
}


def render(facts: Facts) -> tuple[dict[str, Any], list[str]]:
    """Returns the document, and warnings.

    Raises:
        ConfigError: `mlcroissant` is not installed, or does not accept the document.
    """
    warnings = []
    document: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": facts.name,
        "description": _description(facts),
        "version": f"{facts.snapshot}.0.0+{re.sub('[^0-9A-Za-z]', '-', facts.version)}",
        "datePublished": facts.created,
        "rai:dataPreprocessingProtocol": [_protocol(one) for one in facts.features],
    }
    if facts.shards:
        fields = [(field, _type(field.type)) for field in facts.schema]
        document["distribution"] = _distribution(facts)
        document["recordSet"] = [
            {
                "@type": "cr:RecordSet",
                "@id": ROWS,
                "name": ROWS,
                "description": "One record for each window of time of each sample.",
                "key": [{"@id": _id("sample_id")}, {"@id": _id("window")}],
                "field": [_field(facts, field.name, found) for field, found in fields if found is not None],
            }
        ]
        left_out = [text(field.name) for field, found in fields if found is None]
        if left_out:
            warnings.append(f"Croissant has no type for columns, which {NAME} leaves out: {', '.join(left_out)}")
    else:
        warnings.append(f"there are no rows, so that {NAME} names no files")
    _validate(document)
    return document, warnings


def _description(facts: Facts) -> str:
    """Returns what the rows are, and the lineage of the snapshot."""
    return (
        f"{facts.rows} rows of embeddings and token sequences that Tessera extracted from media: snapshot "
        f"{facts.snapshot} of version {facts.version}, made by run {facts.run_id}. Windows: {facts.window or 'none'}. "
        f"Computed with: {facts.versions or 'unknown'}."
    )


def _protocol(feature: FeatureFacts) -> str:
    """Returns the model of a feature, and what happens before and after it."""
    values = {
        "modality": feature.modality,
        "model": feature.model,
        "model type": feature.model_type,
        "revision": feature.revision,
        "sha256 of the weights": feature.weights_sha256,
        "space": feature.space,
        **feature.preprocessing,
    }
    return f"{feature.name}: {'; '.join(f'{name} {value}' for name, value in values.items() if value)}"


def _distribution(facts: Facts) -> list[dict[str, Any]]:
    """Returns the files with their digests, and the set of them that the fields read."""
    paths = facts.shard_paths()
    files = [
        {
            "@type": "cr:FileObject",
            "@id": path,
            "name": path.rpartition("/")[2],
            "contentUrl": path,
            "contentSize": f"{shard.bytes} B",
            "encodingFormat": _FORMAT,
            "sha256": shard.sha256,
        }
        for path, shard in zip(paths, facts.shards, strict=True)
    ]
    whole = {"@type": "cr:FileSet", "@id": _FILES, "name": _FILES, "encodingFormat": _FORMAT, "includes": paths}
    return [*files, whole]


def _field(facts: Facts, name: str, found: tuple[str, str | None]) -> dict[str, Any]:
    """Returns the field of a column."""
    data_type, shape = found
    array = {} if shape is None else {"isArray": True, "arrayShape": shape}
    return {
        "@type": "cr:Field",
        "@id": _id(name),
        "name": name,
        "description": facts.meanings.get(name, "copied from the corpus"),
        "dataType": data_type,
        **array,
        "source": {"fileSet": {"@id": _FILES}, "extract": {"column": name}},
    }


def _id(column: str) -> str:
    return f"{ROWS}/{safe_name(column.encode(), 200)}"


def _type(kind: pa.DataType) -> tuple[str, str | None] | None:
    """Returns Croissant's name of a type, and the shape of arrays; None: it has none."""
    shape = []
    while is_list(kind):
        shape.append(str(kind.list_size) if pa.types.is_fixed_size_list(kind) else "-1")
        kind = kind.value_type
    if pa.types.is_timestamp(kind):
        return ("sc:DateTime", ",".join(shape) or None)
    if pa.types.is_date(kind):
        return ("sc:Date", ",".join(shape) or None)
    return (_TYPES[kind], ",".join(shape) or None) if kind in _TYPES else None


def _validate(document: dict[str, Any]) -> None:
    """Raises ``ConfigError`` if `mlcroissant` does not accept the document."""
    mlcroissant = library("mlcroissant")
    try:
        mlcroissant.Metadata.from_json(ctx=mlcroissant.Context(), json_=document)
    except (mlcroissant.ValidationError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise ConfigError("path", f"mlcroissant does not accept the card ({describe(error)})", "report it") from error
