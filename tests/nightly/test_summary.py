"""The summary is in one place of this machine and in the dataset, whole or not at all."""

from __future__ import annotations

import datetime
import json
import os
import stat
from pathlib import Path

import pytest

from pipeline.core.errors import ConfigError
from pipeline.nightly import summary

_NOW = datetime.datetime(2026, 1, 31, 2, tzinfo=datetime.UTC)


def test_its_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert summary.local_path("configs/media.yaml", None) == str(tmp_path / "state/tessera/nightly/media.json")
    assert summary.local_path("../../..", None) == str(tmp_path / "state/tessera/nightly/config.json")
    assert summary.local_path("a\n/b c.yaml", None) == str(tmp_path / "state/tessera/nightly/b_c.json")
    monkeypatch.chdir(tmp_path)
    assert summary.local_path("x.yaml", "here.json") == str(tmp_path / "here.json")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert summary.local_path("x.yaml", None) == str(tmp_path / ".local/state/tessera/nightly/x.json")


def test_it_is_written_for_its_owner(tmp_path: Path) -> None:
    found, path = summary.begin("x.yaml", _NOW), tmp_path / "state" / "x.json"
    found["cause"] = "s3://user:hunter2@host/x: \u202e"
    summary.end(found, _NOW + datetime.timedelta(seconds=90))
    summary.write_local(found, str(path))
    read = json.loads(path.read_text())
    assert (read["status"], read["seconds"], read["started"]) == ("running", 90.0, "2026-01-31T02:00:00.000+00:00")
    assert "hunter2" not in path.read_text()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert os.listdir(path.parent) == ["x.json"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--summary: cannot write .*file/x.json"):
        summary.write_local(summary.begin("x", _NOW), str(tmp_path / "file" / "x.json"))


def test_old_ones_go(tmp_path: Path) -> None:
    folder = tmp_path / "_nights"
    folder.mkdir()
    for name in (
        "20260101T020000-00aa.json",
        "20260130T020000-00aa.json",
        "latest.json",
        "notes.json",
        "20261399T020000-00aa.json",
    ):
        (folder / name).write_text("{}")
    found = summary.begin("x", datetime.datetime.now(datetime.UTC))
    age_s = (datetime.datetime.now(datetime.UTC) - datetime.datetime(2026, 1, 15, tzinfo=datetime.UTC)).total_seconds()
    summary.write_to_dataset(found, str(tmp_path), age_s)
    kept = {"20260130T020000-00aa.json", "latest.json", "notes.json", "20261399T020000-00aa.json"}
    assert {*os.listdir(folder)} == {*kept, f"{found['night']}.json"}
    assert json.loads((folder / "latest.json").read_text())["night"] == found["night"]
