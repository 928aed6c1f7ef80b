"""OpenLineage events, from real transports; each event is read back with the typed classes of the client."""

from __future__ import annotations

import dataclasses
import datetime
import importlib
import json
import logging
import os
import pkgutil
import subprocess
import sys
import time
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attr
import pytest
from openlineage.client import facet_v2, generated
from openlineage.client.generated import base as spec

from pipeline import __version__
from pipeline.core.section import Section
from pipeline.telemetry import openlineage
from pipeline.telemetry._dataset_names import dataset_name
from pipeline.telemetry._openlineage_events import ExtractionRunFacet, FailuresOutputDatasetFacet
from pipeline.telemetry.openlineage import Lineage, LineageRun, OpenLineageConfig, RunName, start
from tests.support import ROOT
from tests.telemetry.servers import Answer, replies, server

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


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [*os.environ]:
        if name.startswith("OPENLINEAGE"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")


@pytest.fixture
def emitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, Any]]]:
    """The events of the file transport, checked."""
    path = tmp_path / "events.jsonl"
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "file")
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__LOG_FILE_PATH", str(path))
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__APPEND", "true")

    def read() -> list[dict[str, Any]]:
        events = [json.loads(line) for line in path.read_text().splitlines()]
        for event in events:
            check(event)
        return events

    return read


# -- the client's classes as a validator -------------------------------------------------------------


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


# -- transports --------------------------------------------------------------------------------------


def test_over_http(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(replies("201 Created")) as found:
        monkeypatch.setenv("OPENLINEAGE_URL", f"http://127.0.0.1:{found.port}")
        monkeypatch.setenv("OPENLINEAGE_API_KEY", SECRET)
        lineage = start(OpenLineageConfig(), RUN, {})
        before = {name for name in os.environ if name.startswith("OPENLINEAGE")}
        lineage.end(REPORT, COLUMNS)
    assert lineage.warnings == []
    assert before == {"OPENLINEAGE_URL", "OPENLINEAGE_API_KEY"}, "the key is not copied to what workers inherit"
    assert [request.split(b"\r\n", 1)[0] for request in found.requests] == [b"POST /api/v1/lineage HTTP/1.1"] * 2
    events = [json.loads(request.partition(b"\r\n\r\n")[2]) for request in found.requests]
    for event in events:
        check(event)
    assert [event["eventType"] for event in events] == ["START", "COMPLETE"]
    assert f"authorization: bearer {SECRET}".encode() in found.requests[0].lower()


def test_by_a_config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "lineage.yml"
    config.write_text(f"transport: {{type: file, log_file_path: {tmp_path}/out.jsonl, append: true}}\n")
    monkeypatch.setenv("OPENLINEAGE_CONFIG", str(config))
    lineage = start(OpenLineageConfig(), RUN, {})
    assert lineage.warnings == []
    check(json.loads((tmp_path / "out.jsonl").read_text()))


def test_a_file_of_the_working_folder_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It could name any class to import."""
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path, tmp_path / "home" / ".openlineage"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "openlineage.yml").write_text("transport: {type: file, log_file_path: here}\n")
    lineage = start(OpenLineageConfig(), RUN, {})
    assert lineage.warnings == [
        "the START event of OpenLineage was not sent: set OPENLINEAGE_URL, or OPENLINEAGE_CONFIG to the file of the "
        "client's configuration"
    ]
    assert list(tmp_path.rglob("here*")) == []


def _hangs(_: Any) -> None:
    time.sleep(30)


def _drips(stream: Any) -> None:
    stream.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while True:
        stream.sendall(b"x")
        time.sleep(0.1)


@pytest.mark.parametrize("answer", [_hangs, _drips, replies("503 Service Unavailable")])
def test_a_server_that_does_not_answer_delays_no_run(
    answer: Answer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with server(answer) as found:
        monkeypatch.setenv("OPENLINEAGE_URL", f"http://me:{SECRET}@127.0.0.1:{found.port}")
        started = time.monotonic()
        lineage = start(OpenLineageConfig(timeout_s=1), RUN, {})
        lineage.end(REPORT)
        assert time.monotonic() - started < 4
    assert lineage.warnings == [
        f"the {kind} event of OpenLineage was not sent: it took longer than 1 s" for kind in ("START", "COMPLETE")
    ]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (replies("401 Unauthorized", body=SECRET.encode()), "the server answered 401"),
        (replies("404 Not Found"), "the server answered 404"),
    ],
)
def test_a_server_that_refuses(
    answer: Answer, words: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with server(answer) as found:
        monkeypatch.setenv("OPENLINEAGE_URL", f"http://me:{SECRET}@127.0.0.1:{found.port}")
        lineage = start(OpenLineageConfig(timeout_s=20), RUN, {})
    assert lineage.warnings == [f"the START event of OpenLineage was not sent: {words}"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"OPENLINEAGE_URL": SECRET}, "the client or its configuration failed (ValueError)"),
        ({"OPENLINEAGE__TRANSPORT__TYPE": "no.such.Transport"}, "install the client"),
        ({"OPENLINEAGE_CONFIG": "/no/such/file"}, "set OPENLINEAGE_URL, or OPENLINEAGE_CONFIG"),
        ({"OPENLINEAGE__TRANSPORT__TYPE": "file"}, "the client or its configuration failed"),
        (
            {
                "OPENLINEAGE__TRANSPORT__TYPE": "file",
                "OPENLINEAGE__TRANSPORT__APPEND": "true",
                "OPENLINEAGE__TRANSPORT__LOG_FILE_PATH": f"/proc/{SECRET}/x",
            },
            "",
        ),
    ],
)
def test_a_configuration_that_is_wrong(
    variables: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    lineage = start(OpenLineageConfig(timeout_s=20), RUN, {})
    lineage.end(REPORT)
    assert len(lineage.warnings) == 2
    for line in lineage.warnings:
        assert words in line
        assert line.isprintable()
        assert SECRET not in line
    assert SECRET not in "".join(capfd.readouterr())


def test_disabled_by_its_own_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(replies("200 OK")) as found:
        monkeypatch.setenv("OPENLINEAGE_URL", f"http://127.0.0.1:{found.port}")
        monkeypatch.setenv("OPENLINEAGE_DISABLED", "true")
        lineage = start(OpenLineageConfig(), RUN, {})
        lineage.end(REPORT)
    assert (lineage.warnings, found.requests) == ([], [])


def test_reports_that_no_run_writes_break_nothing(emitted: Callable[..., Any]) -> None:
    for report in (
        {},
        {"snapshot": None},
        {"cells": None},
        {"cells": {}},
        {"samples_by_class": 7},
        {"rows_written": "x"},
    ):
        lineage = start(OpenLineageConfig(), RUN, {})
        lineage.end(report)
        assert len(lineage.warnings) <= 1


# -- off ---------------------------------------------------------------------------------------------


def test_off_without_a_section(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(replies("200 OK")) as found:
        monkeypatch.setenv("OPENLINEAGE_URL", f"http://127.0.0.1:{found.port}")
        lineage = start(None, RUN, {"OPENLINEAGE_PARENT_ID": "x"})
        lineage.end(REPORT)
        assert (lineage.warnings, found.requests) == ([], [])


_PROGRAM = """
import datetime, sys
from pipeline.telemetry import openlineage
run = openlineage.LineageRun("r", "j", (), "/o", "v1", "local", datetime.datetime.now(datetime.UTC))
"""


def in_a_process(program: str) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM + program], capture_output=True, text=True, cwd=ROOT, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


def test_off_costs_no_import_and_without_the_client_a_run_goes_on() -> None:
    said = in_a_process("""
openlineage.start(None, run).end({})
assert not [name for name in sys.modules if name.split(".")[0] in ("openlineage", "requests", "attr")]
sys.modules["openlineage"] = None
print(openlineage.start(openlineage.OpenLineageConfig(), run).warnings[0])
""")
    expected = "the START event of OpenLineage was not sent: install the client with pip install 'tessera[openlineage]'"
    assert said == (expected, "")


def test_what_the_client_logs_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts that fail, and the URL in the errors of a configuration. The process ends although a thread hangs."""
    with server(replies("503 Service Unavailable")) as found:
        monkeypatch.setenv("OPENLINEAGE_URL", f"http://me:{SECRET}@127.0.0.1:{found.port}")
        out, errors = in_a_process("""
lineage = openlineage.start(openlineage.OpenLineageConfig(timeout_s=3), run)
print(*lineage.warnings, sep="\\n")
""")
        assert len(found.requests) > 1, "the client tried again"
    assert (out, errors) == ("the START event of OpenLineage was not sent: it took longer than 3 s", "")


def test_other_logs_of_the_process_are_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    start(OpenLineageConfig(), RUN, {})
    logger = logging.getLogger("urllib3.connectionpool")
    with caplog.at_level(logging.WARNING):
        logger.warning("of somebody else")
    assert [record.message for record in caplog.records if record.name == logger.name] == ["of somebody else"]
    start(OpenLineageConfig(), RUN, {})
    assert logger.filters.count(openlineage._NOT_OF_THREAD) == 1


def test_the_section() -> None:
    from pydantic import ValidationError

    assert issubclass(OpenLineageConfig, Section)
    for wrong in (
        {"namespace": ""},
        {"job": ""},
        {"timeout_s": 0},
        {"timeout_s": 61},
        {"url": "x"},
        {"job": "x" * 201},
    ):
        with pytest.raises(ValidationError):
            OpenLineageConfig.model_validate(wrong)
    assert isinstance(start(None, RUN), Lineage)
