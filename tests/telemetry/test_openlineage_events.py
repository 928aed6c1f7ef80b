"""What OpenLineage events hold; each is read back with the typed classes of the client."""

from __future__ import annotations

import dataclasses
import datetime
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from openlineage.client.generated import base as spec

from pipeline import __version__
from pipeline.telemetry._dataset_names import dataset_name
from pipeline.telemetry._openlineage_events import FailuresOutputDatasetFacet
from pipeline.telemetry.openlineage import LineageRun, OpenLineageConfig, RunName, start
from tests.telemetry.openlineage_spec import (
    COLUMNS,
    PARENT,
    REPORT,
    ROOT_RUN,
    RUN,
    SECRET,
    build,
)

pytestmark = pytest.mark.usefixtures("no_openlineage")


def test_the_validator_refuses_what_is_wrong() -> None:
    for kind, value in (
        (spec.Run, {"runId": "x"}),
        (spec.Run, {}),
        (spec.Job, {"namespace": "a", "name": 1}),
        (spec.Job, {"namespace": "a", "name": "b", "more": 1}),
        (FailuresOutputDatasetFacet, {"rowsFailed": 1}),
        (spec.EventType, "DONE"),
    ):
        with pytest.raises((AssertionError, TypeError, ValueError)):
            build(kind, value)


# -- events ------------------------------------------------------------------------------------------


def test_a_run_that_is_complete(emitted: Callable[..., Any]) -> None:
    lineage = start(OpenLineageConfig(), RUN, {"OPENLINEAGE_PARENT_ID": PARENT, "OPENLINEAGE_ROOT_PARENT_ID": ROOT_RUN})
    lineage.end(REPORT, COLUMNS)
    assert lineage.warnings == []
    first, last = emitted()
    assert (first["eventType"], last["eventType"]) == ("START", "COMPLETE")
    assert first["run"] == last["run"]
    assert first["job"] == last["job"] == {"namespace": "tessera", "name": "pictures"}
    places = [{"namespace": "s3://corpus", "name": "pictures"}], [{"namespace": "s3://datasets", "name": "pictures"}]
    assert (first["inputs"], first["outputs"]) == (last["inputs"], last["outputs"]) == places
    begun, ended = first["by_name"], last["by_name"]
    for one in (begun, ended):
        assert one["jobType"] == [{"processingType": "BATCH", "integration": "TESSERA", "jobType": "EXTRACTION"}]
        assert one["nominalTime"] == [{"nominalStartTime": "2026-01-02T03:04:05.000+00:00"}]
        assert one["processing_engine"] == [
            {"name": "Ray", "version": "2.60.0", "openlineageAdapterVersion": __version__}
        ]
        assert one["dataSource"] == [
            {"name": "s3://corpus", "uri": "s3://corpus/pictures"},
            {"name": "s3://datasets", "uri": "s3://datasets/pictures"},
        ]
        (parent,) = one["parent"]
        assert parent["run"]["runId"] == PARENT.rpartition("/")[2]
        assert (parent["job"]["namespace"], parent["job"]["name"]) == ("airflow/dags", "nightly.extract")
        assert (parent["root"]["job"]["name"], parent["root"]["run"]["runId"][-1]) == ("nightly", "8")
    assert not {"version", "schema", "outputStatistics", "inputStatistics", "tessera_failures"} & {*begun}
    assert ended["version"] == [{"datasetVersion": "v1/12"}]
    assert [(one["name"], one["type"], one["ordinal_position"]) for one in ended["schema"][0]["fields"]] == [
        ("sample_id", "string", 1),
        ("f_embedding", "list<element: float>", 2),
    ]
    assert ended["outputStatistics"] == [{"rowCount": 20, "size": 2000, "fileCount": 2}]
    assert ended["inputStatistics"] == [{"rowCount": 7, "size": 1000}]
    assert ended["tessera_failures"] == [
        {
            "rowsFailed": 1,
            "rowsWithFailures": 2,
            "cellsPlanned": 42,
            "cellsWritten": 39,
            "cellsFailed": 3,
            "byKind": {"corrupt": 2, "crash": 1},
            "byStage": {"decode": 3},
        }
    ]
    assert ended["tessera_run"] == [
        {
            "runId": RUN.run_id,
            "engine": "ray",
            "status": "complete",
            "snapshot": 12,
            "seconds": 3.5,
            "samples": 7,
            "samplesByClass": {"new": 6, "changed": 1},
        }
    ]
    assert "errorMessage" not in ended


@pytest.mark.parametrize(("interrupted", "kind"), [(False, "FAIL"), (True, "ABORT")])
def test_a_run_that_is_not(emitted: Callable[..., Any], interrupted: bool, kind: str) -> None:
    lineage = start(OpenLineageConfig(job="other", namespace="team"), RUN, {})
    lineage.end(
        {"status": "broken off"}, cause=f"cannot read https://me:{SECRET}@host/x\nmore", interrupted=interrupted
    )
    first, last = emitted()
    assert (first["eventType"], last["eventType"]) == ("START", kind)
    assert last["job"] == {"namespace": "team", "name": "other"}
    assert last["by_name"]["errorMessage"] == [
        {"message": "cannot read https://***@host/x more", "programmingLanguage": "PYTHON"}
    ]
    assert last["by_name"]["tessera_run"][0]["status"] == "broken off"
    assert not {"version", "outputStatistics", "tessera_failures", "parent"} & {*last["by_name"]}


def test_a_run_past_its_budget_has_a_version(emitted: Callable[..., Any]) -> None:
    start(OpenLineageConfig(), RUN, {}).end(REPORT, COLUMNS, cause="7 of 7 rows failed")
    last = emitted()[-1]
    assert (last["eventType"], last["by_name"]["version"]) == ("FAIL", [{"datasetVersion": "v1/12"}])


def test_other_engines_sources_and_times(emitted: Callable[..., Any]) -> None:
    scheduled = datetime.datetime(2026, 1, 2, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=1)))
    run = changed(RUN, engine="local", engine_version=None, sources=("a/b", "s3://x/y"), scheduled=scheduled)
    start(OpenLineageConfig(), run, {}).end(REPORT)
    last = emitted()[-1]
    assert last["by_name"]["processing_engine"][0] == {
        "name": "Tessera (local)",
        "version": __version__,
        "openlineageAdapterVersion": __version__,
    }
    assert last["by_name"]["nominalTime"] == [{"nominalStartTime": "2026-01-02T02:00:00.000+01:00"}]
    assert [one["namespace"] for one in last["inputs"]] == ["file", "s3://x"]
    assert "inputStatistics" not in last["by_name"], "of which of the two?"


def changed(run: LineageRun, **changes: Any) -> LineageRun:
    return dataclasses.replace(run, **changes)


def test_the_id_is_that_of_the_run(emitted: Callable[..., Any]) -> None:
    """The end of a run may be emitted by another process than its start."""
    for run in (RUN, RUN, changed(RUN, run_id="20260102T030405-abce")):
        start(OpenLineageConfig(), run, {})
    ids = [event["run"]["runId"] for event in emitted()]
    assert (ids[0] == ids[1], ids[0] == ids[2]) == (True, False)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://bucket/a/b/", ("s3://bucket", "a/b")),
        ("s3://bucket", ("s3://bucket", "/")),
        ("gs://bucket/a?versionId=1#x", ("gs://bucket", "a")),
        ("/data/a", ("file", "/data/a")),
        ("file:///data/a", ("file", "/data/a")),
        (f"https://me:{SECRET}@host:8443/a", ("https://host:8443", "a")),
        (f"https://{SECRET}@host/a?sig={SECRET}", ("https://host", "a")),
        (f"sftp://me:{SECRET}@host/a/b", ("sftp://host", "a/b")),
        ("abfss://container@account.dfs.core.windows.net/a", ("abfss://container@account.dfs.core.windows.net", "a")),
        ("hdfs://name:8020/user/x", ("hdfs://name:8020", "user/x")),
    ],
)
def test_names_of_datasets(url: str, expected: tuple[str, str]) -> None:
    assert dataset_name(url) == expected
    assert dataset_name("relative/x") == ("file", os.path.abspath("relative/x"))


def test_no_secret_of_urls_and_columns(emitted: Callable[..., Any], tmp_path: Path) -> None:
    run = changed(RUN, sources=(f"https://me:{SECRET}@host/a?token={SECRET}",), output=f"ftp://me:{SECRET}@h/o")
    start(OpenLineageConfig(), run, {}).end(REPORT, [(f"https://me:{SECRET}@h/\x1b[2J", "x")])
    emitted()
    text = (tmp_path / "events.jsonl").read_text()
    assert SECRET not in text
    assert "\\u001b" not in text


@pytest.mark.parametrize(
    "text", ["x", "a/b", "a/b/not-a-uuid", "/b/01890a5d-ac96-774b-bcce-b302099a8057", f"{SECRET}/"]
)
def test_a_parent_that_is_none_is_a_warning(emitted: Callable[..., Any], text: str) -> None:
    lineage = start(OpenLineageConfig(), RUN, {"OPENLINEAGE_PARENT_ID": text})
    assert lineage.warnings == [
        "the events of OpenLineage have no parent: OPENLINEAGE_PARENT_ID is not namespace/job/run id"
    ]
    assert "parent" not in emitted()[0]["by_name"]
    assert RunName.of(PARENT) == RunName("airflow/dags", "nightly.extract", PARENT.rpartition("/")[2])
