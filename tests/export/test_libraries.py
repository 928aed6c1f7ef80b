"""Libraries that are not installed, or cannot be imported."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

from pipeline.core.errors import ConfigError
from pipeline.export.libraries import library
from tests.support import ROOT


def test_a_library_that_is_there() -> None:
    import json

    assert library("json") is json


def test_one_that_is_missing_or_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError) as caught:
        library("no_such_library")
    what = "tessera[export]: 'no_such_library' is not installed; pip install 'tessera[export]'"
    assert str(caught.value) == what
    (tmp_path / "broken_library.py").write_text("import no_such_part")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=r"'broken_library' cannot be imported .*no_such_part"):
        library("broken_library")
    sys.modules.pop("broken_library", None)


def test_the_extra_has_each_of_them() -> None:
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["export"]
    assert {one.partition(">=")[0] for one in extra} == {"webdataset", "pylance", "datasets", "mlcroissant"}
