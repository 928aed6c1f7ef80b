"""The metrics of nights: each outcome, over several nights in one text file."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import BudgetExceeded, ConfigError
from pipeline.nightly import Night, NightOptions
from pipeline.telemetry import recording
from tests.stages.media_fixtures import AUDIO, config, write_tone
from tests.support.exposition import Exposition


@pytest.fixture
def night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a night and returns its metrics, as its text file has them afterwards."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(6):
        write_tone(folder / f"tone{number}.wav", 2.0)

    def call(deadline: str | None = None, partial_exit: int = 0, **sections: Any) -> Exposition:
        monkeypatch.setattr(recording, "_values", recording._Values())  # as in a new process
        metrics = {"textfile": str(tmp_path / "t.prom"), **sections.pop("metrics", {})}
        settings = config(folder, {"a": AUDIO}, compute={"block_rows": 1}, metrics=metrics, **sections)
        options = NightOptions("inline", deadline, None, partial_exit)
        try:
            Night("config.yaml", str(tmp_path / "summary.json"), options, time.time()).run(lambda: settings)
        finally:
            call.found = Exposition((tmp_path / "t.prom").read_text())
        return call.found

    return call


def _times(found: Exposition) -> dict[str, float]:
    names = ("success", "complete", "failure", "end")
    return {name: found(f"tessera_night_{name}_timestamp_seconds") for name in names}


@pytest.mark.slow
def test_nights_of_every_outcome(night: Any, tmp_path: Path) -> None:
    first = night(deadline="1s", partial_exit=75)
    if first("tessera_lag_samples"):  # the deadline left some
        assert first("tessera_night_exit_code") == 75
        assert _times(first)["complete"] == 0
    assert _times(first)["success"] == _times(first)["end"] > time.time() - 60

    second = night()
    assert second("tessera_night_exit_code") == 0
    assert second("tessera_lag_samples") == 0
    assert _times(second)["complete"] == _times(second)["success"] > _times(first)["success"]
    assert first("tessera_samples_total") + second("tessera_samples_total") == 6

    for number in range(5):
        (tmp_path / "in" / f"bad{number}.wav").write_bytes(b"RIFF....WAVE")
    with pytest.raises(BudgetExceeded):
        night()
    third = night.found
    assert third("tessera_night_exit_code") == 3
    assert third("tessera_failures_total", kind="corrupt") + third("tessera_failures_total", kind="unsupported") == 5
    assert _times(third)["failure"] == _times(third)["end"] > _times(second)["end"]
    assert _times(third)["success"] == _times(second)["success"]

    with pytest.raises(ConfigError):
        night(source={"kind": "files", "path": str(tmp_path / "gone")})
    fourth = night.found
    assert fourth("tessera_night_exit_code") == 2
    assert _times(fourth)["failure"] > _times(third)["failure"]
    assert _times(fourth)["complete"] == _times(second)["complete"]

    fifth = night()  # nothing to do is a success
    assert fifth("tessera_night_exit_code") == 0
    assert _times(fifth)["success"] > _times(fourth)["failure"]
    assert fifth("tessera_rows_total") == 0


def test_a_port_that_is_taken_is_in_the_summary(night: Any, tmp_path: Path) -> None:
    refused = pytest.raises(ConfigError, match=r"^metrics\.port: cannot listen")
    with socket.create_server(("127.0.0.1", 0)) as taken, refused:
        night(metrics={"port": taken.getsockname()[1]})
    assert "metrics.port" in (tmp_path / "summary.json").read_text()
    assert not (tmp_path / "out" / "v1" / "data").exists()
