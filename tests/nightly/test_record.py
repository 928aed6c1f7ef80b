"""The record of a night survives what nights die of: a full disk, a missing corpus, another version, a planted link."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline import config as configs
from pipeline import run
from pipeline.core.errors import ConfigError, StorageError
from pipeline.dataset.commit.transaction import Transaction
from pipeline.nightly import Night, NightOptions
from tests.end_to_end.test_nights import config, draw
from tests.support import local_runs
from tests.telemetry.servers import replies, server


def _night(folder: Path, raises: type[Exception] | None = None, path: str | None = None, **sections: Any) -> Night:
    night = Night("c.yaml", path or str(folder / "summary.json"), NightOptions(engine="inline"), time.time())

    def load() -> configs.PipelineConfig:
        return config(folder, **sections)

    if raises is None:
        night.run(load)
    else:
        with pytest.raises(raises):
            night.run(load)
    return night


def _latest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "out" / "_nights" / "latest.json").read_text())
    return found


def test_a_place_that_cannot_be_written_costs_no_night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path, "a", 1)
    (tmp_path / "file").write_text("")
    with server(replies("200 OK")) as found:
        monkeypatch.setenv("NIGHT_HOOK", f"http://127.0.0.1:{found.port}/x")
        hook = {"nightly": {"webhook": {"url_env": "NIGHT_HOOK"}}}
        nowhere = str(tmp_path / "file" / "summary.json")
        done = _night(tmp_path, path=nowhere, **hook).summary
        assert (done["status"], done["exit_code"], done["committed"]) == ("complete", 0, True)
        assert len(done["warnings"]) == 1
        assert "--summary: cannot write" in done["warnings"][0]
        assert _latest(tmp_path)["status"] == "complete"
        missing = {"kind": "files", "path": str(tmp_path / "none")}
        failed = _night(tmp_path, ConfigError, path=nowhere, source=missing, **hook).summary
        assert failed["webhook"] == "posted"
        assert len(found.requests) == 1


def test_a_night_that_fails_early_is_in_the_dataset_too(tmp_path: Path) -> None:
    missing = {"kind": "files", "path": str(tmp_path / "none")}
    _night(tmp_path, ConfigError, source=missing)
    assert not (tmp_path / "out").exists(), "there is no dataset yet"
    draw(tmp_path, "a", 1)
    _night(tmp_path)
    failed = _night(tmp_path, ConfigError, source=missing).summary
    assert _latest(tmp_path) == failed == json.loads((tmp_path / "summary.json").read_text())
    assert failed["step"] == "prepare"
    assert failed["lag"]["oldest_age_s"] > 0


def test_a_link_in_the_place_of_the_summaries_is_not_followed(tmp_path: Path) -> None:
    draw(tmp_path, "a", 1)
    _night(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    nights = tmp_path / "out" / "_nights"
    nights.rename(tmp_path / "kept")
    nights.symlink_to(other)
    failed = _night(tmp_path, StorageError).summary
    assert "symbolic link" in failed["cause"]
    assert not list(other.iterdir())
    assert any("the summary is not in the dataset" in one for one in failed["warnings"])


def test_another_version_that_is_in_use_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Transaction.__init__, "__defaults__", (1.0,))  # seconds until a lease expires
    draw(tmp_path, "a", 1)
    _night(tmp_path)
    run.extract(local_runs.prepare(config(tmp_path), new_version=True, engine_name="inline"), show_progress=False)
    (tmp_path / "out" / "_current.json").unlink()
    sections = {"output": {"path": str(tmp_path / "out"), "version": "v1"}}
    root = str(tmp_path / "out" / "v2")
    with Transaction(root, "compact", "20260101T000000-00aa"):
        done = _night(tmp_path, **sections).summary
    assert done["status"] == "complete"
    assert [one["version"] for one in done["vacuum"]] == ["v1"]
    (warning,) = done["warnings"]
    assert warning.startswith("version v2 was not vacuumed: InUse: ")


def test_the_lag_is_carried_over_when_reports_have_gone(tmp_path: Path) -> None:
    """The folders of old runs are deleted; the night before has the time."""
    draw(tmp_path, "a", 1)
    _night(tmp_path)
    missing = {"kind": "files", "path": str(tmp_path / "none")}
    first = _night(tmp_path, ConfigError, source=missing).summary["lag"]["since"]
    for report in (tmp_path / "out" / "v1" / "_runs").glob("*/report.json"):
        os.unlink(report)
    assert _night(tmp_path, ConfigError, source=missing).summary["lag"]["since"] == first
