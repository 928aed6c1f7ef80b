"""Where OpenLineage events go, by real transports; nothing that fails there ends or delays a run."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.section import Section
from pipeline.telemetry import openlineage
from pipeline.telemetry.openlineage import Lineage, OpenLineageConfig, start
from tests.support import ROOT
from tests.telemetry.openlineage_spec import (
    COLUMNS,
    REPORT,
    RUN,
    SECRET,
    check,
)
from tests.telemetry.servers import Answer, replies, server

pytestmark = pytest.mark.usefixtures("no_openlineage")


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
