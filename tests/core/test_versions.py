"""Versions of the libraries that compute the values."""

from __future__ import annotations

import platform
from importlib.metadata import version

import pytest

from pipeline.core import versions


def test_versions_are_those_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "_PACKAGES", ("torch", "pyarrow", "no-such-package"))
    assert versions.installed() == {
        "python": platform.python_version(),
        "tessera": version("tessera"),
        "torch": version("torch"),
        "pyarrow": version("pyarrow"),
        "no-such-package": "not installed",
    }
