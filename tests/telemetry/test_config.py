"""The section ``metrics``: off by default, and no part of what decides values."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline import config as configs
from pipeline import run
from pipeline.core.errors import ConfigError
from pipeline.run.checks import identities
from pipeline.telemetry.config import MetricsConfig
from tests.stages.media_fixtures import IMAGE, config, write_tone


def test_nothing_is_exported_by_default() -> None:
    section = MetricsConfig()
    assert (section.port, section.textfile, section.host) == (None, None, "127.0.0.1")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"port": 0}, r"^metrics\.port: "),
        ({"port": 70000}, r"^metrics\.port: "),
        ({"textfile": "tessera.txt"}, r"^metrics\.textfile: found 'tessera.txt'; .*\.prom"),
        ({"textfile": "s3://bucket/tessera.prom"}, r"^metrics\.textfile: .*a local path"),
        ({"name": 'a"b'}, r"^metrics\.name: "),
        ({"name": "a/b"}, r"^metrics\.name: "),
    ],
    ids=str,
)
def test_what_is_refused(tmp_path: Path, section: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        config(tmp_path, {"i": IMAGE}, metrics=section)
    assert re.search(message, str(raised.value))


def test_it_decides_no_value(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_tone(tmp_path / "in" / "tone.wav", 1.0)
    plain, other = (
        run.prepare(config(tmp_path / "in", {"i": IMAGE}, **more), False, None, "inline")
        for more in ({}, {"metrics": {"port": 9464, "name": "x", "ray": False}})
    )
    assert identities(plain) == identities(other)
    assert [one.fingerprint for one in plain.features] == [one.fingerprint for one in other.features]


def test_a_relative_path_is_that_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A submitted run has another working directory."""
    monkeypatch.chdir(tmp_path)
    found = configs.here(config(tmp_path, {"i": IMAGE}, metrics={"textfile": "t.prom"}))
    assert found.metrics.textfile == str(tmp_path / "t.prom")
