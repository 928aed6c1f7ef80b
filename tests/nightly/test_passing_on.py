"""What a night passes on: the webhook, the metrics, the lineage of its run. None of it changes the exit code."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline import config as configs
from pipeline.core.errors import BudgetExceeded, ConfigError
from pipeline.nightly import Night, NightOptions
from tests.end_to_end.test_nights import config, draw
from tests.telemetry.servers import replies, server


def _night(folder: Path, raises: type[Exception] | None = None, **sections: Any) -> dict[str, Any]:
    """Runs a night of this process, and returns its summary as it is in its file."""
    night = Night("c.yaml", str(folder / "summary.json"), NightOptions(engine="inline"), time.time())

    def load() -> configs.PipelineConfig:
        return config(folder, **sections)

    if raises is None:
        night.run(load)
    else:
        with pytest.raises(raises):
            night.run(load)
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def _bodies(requests: list[bytes]) -> list[dict[str, Any]]:
    return [json.loads(one.partition(b"\r\n\r\n")[2]) for one in requests]


def test_the_webhook_is_called_for_failures_and_alerts_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hook = {"nightly": {"webhook": {"url_env": "NIGHT_HOOK"}}}
    draw(tmp_path, "a", 1)
    with server(replies("200 OK")) as found:
        monkeypatch.setenv("NIGHT_HOOK", f"http://127.0.0.1:{found.port}/s3cr3t")
        assert _night(tmp_path, **hook)["status"] == "complete"
        assert not found.requests
        for i in range(4):
            (tmp_path / "in" / f"bad{i}.png").write_bytes(b"no picture")
        alarmed = _night(tmp_path, **hook)
        failed = _night(tmp_path, ConfigError, source={"kind": "files", "path": str(tmp_path / "none")}, **hook)
        posted = _bodies(found.requests)
    assert [one["status"] for one in posted] == ["complete", "failed"]
    assert {**posted[0], "webhook": "posted"} == alarmed
    assert len(alarmed["alerts"]) == 1
    assert {**posted[1], "webhook": "posted"} == failed
    assert (failed["exit_code"], failed["warnings"]) == (2, [])
    assert (failed["committed"], failed["snapshot"], failed["version"], failed["run_id"]) == (False, 2, "v1", None)
    assert alarmed["committed"] is True
    assert "s3cr3t" not in (tmp_path / "summary.json").read_text()


def test_a_webhook_that_fails_is_in_the_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path, "a", 1)
    missing = {"kind": "files", "path": str(tmp_path / "none")}
    hook = {"nightly": {"webhook": {"url_env": "NIGHT_HOOK"}}, "source": missing}
    monkeypatch.delenv("NIGHT_HOOK", raising=False)
    found = _night(tmp_path, ConfigError, **hook)
    problem = "the webhook was not called: the environment variable NIGHT_HOOK is not set"
    assert (found["exit_code"], found["webhook"]) == (2, problem)


def test_the_metrics_of_nights(tmp_path: Path) -> None:
    file = tmp_path / "tessera.prom"
    exported = {"metrics": {"name": "nights", "textfile": str(file)}}

    def values() -> dict[str, float]:
        families = text_string_to_metric_families(file.read_text())
        return {sample.name: sample.value for family in families for sample in family.samples}

    for i in range(3):
        draw(tmp_path, f"s{i}", i)
    _night(tmp_path, **exported)
    first = values()
    assert (first["tessera_night_exit_code"], first["tessera_lag_samples"]) == (0, 0)
    assert first["tessera_night_success_timestamp_seconds"] == first["tessera_night_end_timestamp_seconds"]
    missing = {"kind": "files", "path": str(tmp_path / "none")}
    _night(tmp_path, ConfigError, source=missing, **exported)
    second = values()
    assert second["tessera_night_exit_code"] == 2
    assert second["tessera_night_failure_timestamp_seconds"] == second["tessera_night_end_timestamp_seconds"]
    assert second["tessera_night_success_timestamp_seconds"] == first["tessera_night_success_timestamp_seconds"]


def test_the_lineage_of_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openlineage.client")
    file = tmp_path / "events.ndjson"
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "file")
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__LOG_FILE_PATH", str(file))
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__APPEND", "true")
    sections = {"openlineage": {"namespace": "corpus", "job": "nights"}}

    def events() -> list[dict[str, Any]]:
        return [json.loads(line) for line in file.read_text().splitlines()]

    draw(tmp_path, "a", 1)
    done = _night(tmp_path, **sections)
    assert [one["eventType"] for one in events()] == ["START", "COMPLETE"]
    assert {one["run"]["runId"] for one in events()} == {events()[0]["run"]["runId"]}
    (output,) = events()[1]["outputs"]
    assert output["facets"]["version"]["datasetVersion"] == f"v1/{done['report']['snapshot']}"
    assert output["outputFacets"]["outputStatistics"]["rowCount"] == 1
    assert "p_tokens" in [one["name"] for one in output["facets"]["schema"]["fields"]]
    for i in range(30):
        (tmp_path / "in" / f"bad{i}.png").write_bytes(b"no picture")
    _night(tmp_path, BudgetExceeded, failures={"max_rows": 3}, **sections)
    assert [one["eventType"] for one in events()] == ["START", "COMPLETE", "START", "FAIL"]
    assert "30 of 30 rows failed" in events()[3]["run"]["facets"]["errorMessage"]["message"]
    assert _night(tmp_path)["status"] == "complete"
    assert len(events()) == 4, "off unless configured"
