"""The client of OpenLineage, and its events. Only this module imports it, which takes a second."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attr
from openlineage.client import OpenLineageClient
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.facet_v2 import (
    DatasetFacet,
    InputDatasetFacet,
    OutputDatasetFacet,
    RunFacet,
    dataset_type_dataset,
    dataset_version_dataset,
    datasource_dataset,
    error_message_run,
    input_statistics_input_dataset,
    job_type_job,
    nominal_time_run,
    output_statistics_output_dataset,
    parent_run,
    processing_engine_run,
    schema_dataset,
)
from openlineage.client.uuid import generate_static_uuid

import pipeline
from pipeline.core.errors import one_line
from pipeline.telemetry._dataset_names import dataset_name

if TYPE_CHECKING:
    from pipeline.telemetry.openlineage import LineageEnd, LineageRun, OpenLineageConfig, RunName

PRODUCER = f"urn:tessera:{pipeline.__version__}"
"""Identifies what made an event, as a URI."""
_ENGINES = {"ray": "Ray"}
_MAX_COLUMNS = 2000


@attr.define
class FailuresOutputDatasetFacet(OutputDatasetFacet):
    """``tessera_failures``: the rows and cells of a run that could not be computed. A cell is one feature of a row."""

    rowsFailed: int
    """Rows of which no feature succeeded."""
    rowsWithFailures: int
    cellsPlanned: int
    cellsWritten: int
    cellsFailed: int
    byKind: dict[str, int]
    byStage: dict[str, int]

    @staticmethod
    def _get_schema() -> str:
        return "urn:tessera:openlineage:failures:1"


@attr.define
class ExtractionRunFacet(RunFacet):
    """``tessera_run``: the run as Tessera knows it."""

    runId: str
    """The id of the run, which is also the name of its folder in the dataset."""
    engine: str
    status: str | None = None
    snapshot: int | None = None
    seconds: float | None = None
    samples: int | None = None
    samplesByClass: dict[str, int] | None = None

    @staticmethod
    def _get_schema() -> str:
        return "urn:tessera:openlineage:run:1"


class _Client(OpenLineageClient):
    @staticmethod
    def _find_yaml_config_path() -> str | None:
        """The client would also read ``openlineage.yml`` of the working folder, which may name a class to import."""
        path = os.environ.get("OPENLINEAGE_CONFIG")
        return path if path and os.path.isfile(path) else None


def client() -> OpenLineageClient | None:
    """Returns a client that is configured by the environment. None: the environment does not say where events go."""
    before = dict(os.environ)
    try:
        made = _Client()
    finally:  # the client copies the URL and the key into further variables, which worker processes would inherit
        for name in {*os.environ} - {*before}:
            if name.startswith("OPENLINEAGE__"):
                del os.environ[name]
    # without a configuration the client prints events
    is_chosen = made.transport.kind != "console" or (made.config.transport or {}).get("type") == "console"
    return made if is_chosen else None


def run_event(
    config: OpenLineageConfig, run: LineageRun, end: LineageEnd | None, parent: RunName | None, root: RunName | None
) -> RunEvent:
    """Returns the event of the start of a run, or of its ``end``.

    Args:
        config: the section of the config.
        run: the run.
        end: None: START.
        parent: the run that started this one; None: there is none.
        root: the run that started all of them.
    """
    report = end.report if end else {}
    return RunEvent(
        eventTime=datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
        eventType=RunState[end.kind if end else "START"],
        run=Run(_run_id(config, run), _run_facets(run, end, parent, root)),
        job=Job(
            one_line(config.namespace, 200),
            one_line(config.job or run.job, 200),
            {"jobType": job_type_job.JobTypeJobFacet("BATCH", "TESSERA", "EXTRACTION", producer=PRODUCER)},
        ),
        inputs=[_input(source, report if len(run.sources) == 1 else {}) for source in run.sources],
        outputs=[_output(run, end)],
        producer=PRODUCER,
    )


def _run_id(config: OpenLineageConfig, run: LineageRun) -> str:
    """Returns the same UUID for all events of a run, also from another process."""
    named = f"{config.namespace}/{config.job or run.job}/{run.run_id}"
    return str(generate_static_uuid(run.started, named.encode(errors="replace")))


def _run_facets(
    run: LineageRun, end: LineageEnd | None, parent: RunName | None, root: RunName | None
) -> dict[str, RunFacet]:
    report = end.report if end else {}
    facets: dict[str, RunFacet] = {
        "nominalTime": nominal_time_run.NominalTimeRunFacet(
            (run.scheduled or run.started).isoformat(timespec="milliseconds"), producer=PRODUCER
        ),
        "processing_engine": processing_engine_run.ProcessingEngineRunFacet(
            version=run.engine_version or pipeline.__version__,
            name=_ENGINES.get(run.engine, f"Tessera ({run.engine})"),
            openlineageAdapterVersion=pipeline.__version__,
            producer=PRODUCER,
        ),
        "tessera_run": ExtractionRunFacet(
            runId=run.run_id,
            engine=run.engine,
            status=report.get("status"),
            snapshot=report.get("snapshot"),
            seconds=report.get("seconds"),
            samples=report.get("samples"),
            samplesByClass=dict(report["samples_by_class"]) if "samples_by_class" in report else None,
            producer=PRODUCER,
        ),
    }
    if parent is not None:
        facets["parent"] = parent_run.ParentRunFacet(
            parent_run.Run(parent.run_id),
            parent_run.Job(parent.namespace, parent.job),
            parent_run.Root(parent_run.RootRun(root.run_id), parent_run.RootJob(root.namespace, root.job))
            if root is not None
            else None,
            producer=PRODUCER,
        )
    if end is not None and end.cause is not None:
        facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(
            one_line(end.cause, 1000), "PYTHON", producer=PRODUCER
        )
    return facets


def _input(source: str, report: Mapping[str, Any]) -> InputDataset:
    namespace, name = dataset_name(source)
    facets: dict[str, InputDatasetFacet] = {}
    if "bytes_read" in report:
        facets["inputStatistics"] = input_statistics_input_dataset.InputStatisticsInputDatasetFacet(
            rowCount=report.get("samples"), size=report["bytes_read"], producer=PRODUCER
        )
    return InputDataset(namespace, name, facets, facets=_common_facets(namespace, name))


def _output(run: LineageRun, end: LineageEnd | None) -> OutputDataset:
    namespace, name = dataset_name(run.output)
    facets, report = _common_facets(namespace, name), end.report if end else {}
    if end is not None and end.columns:
        facets["schema"] = schema_dataset.SchemaDatasetFacet(
            [
                schema_dataset.SchemaDatasetFacetFields(one_line(column, 500), one_line(kind, 500), ordinal_position=i)
                for i, (column, kind) in enumerate(end.columns[:_MAX_COLUMNS], start=1)
            ],
            producer=PRODUCER,
        )
    if report.get("snapshot") is not None:
        facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(
            f"{run.version}/{report['snapshot']}", producer=PRODUCER
        )
    output_facets: dict[str, OutputDatasetFacet] = {}
    if "rows_written" in report:
        output_facets["outputStatistics"] = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
            rowCount=report["rows_written"],
            size=report.get("bytes_written"),
            fileCount=report.get("shards"),
            producer=PRODUCER,
        )
    if "cells" in report:
        output_facets["tessera_failures"] = _failures(report)
    return OutputDataset(namespace, name, output_facets, facets=facets)


def _failures(report: Mapping[str, Any]) -> FailuresOutputDatasetFacet:
    cells = report["cells"]
    return FailuresOutputDatasetFacet(
        rowsFailed=report.get("rows_failed", 0),
        rowsWithFailures=report.get("rows_with_failures", 0),
        cellsPlanned=cells.get("planned", 0),
        cellsWritten=cells.get("written", 0),
        cellsFailed=cells.get("failed", 0),
        byKind=dict(report.get("failures_by_kind", {})),
        byStage=dict(report.get("failures_by_stage", {})),
        producer=PRODUCER,
    )


def _common_facets(namespace: str, name: str) -> dict[str, DatasetFacet]:
    uri = f"file://{name}" if namespace == "file" else f"{namespace}/{name}"
    return {
        "dataSource": datasource_dataset.DatasourceDatasetFacet(namespace, uri, producer=PRODUCER),
        "datasetType": dataset_type_dataset.DatasetTypeDatasetFacet("FILE", producer=PRODUCER),
    }
