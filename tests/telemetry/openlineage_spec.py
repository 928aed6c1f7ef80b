"""A run for tests of OpenLineage events, and a check of events by the typed classes of the client."""

from __future__ import annotations

import datetime
import importlib
import pkgutil
import types
import typing
from collections.abc import Iterator
from typing import Any

import attr
from openlineage.client import facet_v2, generated
from openlineage.client.generated import base as spec

from pipeline import __version__
from pipeline.telemetry._openlineage_events import ExtractionRunFacet, FailuresOutputDatasetFacet
from pipeline.telemetry.openlineage import LineageRun

STARTED = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
RUN = LineageRun(
    run_id="20260102T030405-abcd",
    job="pictures",
    sources=("s3://corpus/pictures",),
    output="s3://datasets/pictures",
    version="v1",
    engine="ray",
    started=STARTED,
    engine_version="2.60.0",
)
REPORT: dict[str, Any] = {
    "status": "complete",
    "snapshot": 12,
    "seconds": 3.5,
    "samples": 7,
    "samples_by_class": {"new": 6, "changed": 1},
    "rows_written": 20,
    "rows_failed": 1,
    "rows_with_failures": 2,
    "cells": {"planned": 42, "written": 39, "failed": 3},
    "failures_by_kind": {"corrupt": 2, "crash": 1},
    "failures_by_stage": {"decode": 3},
    "bytes_read": 1000,
    "bytes_written": 2000,
    "shards": 2,
}
COLUMNS = [("sample_id", "string"), ("f_embedding", "list<element: float>")]
PARENT = "airflow/dags/nightly.extract/01890a5d-ac96-774b-bcce-b302099a8057"
ROOT_RUN = "airflow/nightly/01890a5d-ac96-774b-bcce-b302099a8058"
SECRET = "hunter22"


def classes() -> Iterator[type]:
    for module in pkgutil.iter_modules(generated.__path__):
        found = importlib.import_module(f"{generated.__name__}.{module.name}")
        yield from (one for one in vars(found).values() if isinstance(one, type) and attr.has(one))
    yield from (FailuresOutputDatasetFacet, ExtractionRunFacet)


FACETS = {one._get_schema(): one for one in classes() if issubclass(one, spec.BaseFacet)}
ENTITIES = {
    "run": (spec.RunFacet, facet_v2.RunFacet),
    "job": (spec.JobFacet,),
    "facets": (spec.DatasetFacet,),
    "inputFacets": (spec.InputDatasetFacet,),
    "outputFacets": (spec.OutputDatasetFacet,),
}


def check(event: dict[str, Any]) -> None:
    """Every required member, no unknown one, each of its type; facets as their schema's URL says."""
    assert event["schemaURL"] == spec.RunEvent._get_schema()
    assert datetime.datetime.fromisoformat(event["eventTime"]).utcoffset() is not None
    facets = [(facet, "run") for facet in event["run"].pop("facets", {}).items()]
    facets += [(facet, "job") for facet in event["job"].pop("facets", {}).items()]
    for one in (*event["inputs"], *event["outputs"]):
        for name in ("facets", "inputFacets", "outputFacets"):
            facets += [(facet, name) for facet in one.pop(name, {}).items()]
    built = build(spec.RunEvent, {name: value for name, value in event.items() if name != "schemaURL"})
    assert built.producer == f"urn:tessera:{__version__}"
    event["by_name"] = {}
    for (name, values), entity in facets:
        kind = FACETS[values["_schemaURL"]]
        assert issubclass(kind, ENTITIES[entity]), name
        build(kind, {key.lstrip("_"): value for key, value in values.items() if key != "_schemaURL"})
        event["by_name"].setdefault(name, []).append(
            {key: value for key, value in values.items() if not key.startswith("_")}
        )


def build(kind: Any, value: Any) -> Any:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        options = [one for one in typing.get_args(kind) if one is not type(None)]
        assert len(options) == 1
        return build(options[0], value)
    if typing.get_origin(kind) is list:
        assert isinstance(value, list)
        return [build(typing.get_args(kind)[0], one) for one in value]
    if typing.get_origin(kind) is dict:
        assert isinstance(value, dict)
        return {key: build(typing.get_args(kind)[1], one) for key, one in value.items()}
    if attr.has(kind):
        attr.resolve_types(kind)
        fields = {one.alias: one for one in attr.fields(kind)}
        assert {*value} <= {*fields}, f"{kind.__name__}: { ({*value} - {*fields}) }"
        return kind(**{name: build(fields[name].type, one) for name, one in value.items()})
    if isinstance(kind, type) and issubclass(kind, spec.EventType):
        return kind(value)
    assert isinstance(value, (int, float) if kind is float else kind), (kind, value)
    return value
