"""Fixtures of tests of OpenLineage events."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.telemetry.openlineage_spec import (
    check,
)


@pytest.fixture
def no_openlineage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing outside of the test says where events go."""
    for name in [*os.environ]:
        if name.startswith("OPENLINEAGE"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")


@pytest.fixture
def emitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_openlineage: None
) -> Callable[[], list[dict[str, Any]]]:
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
