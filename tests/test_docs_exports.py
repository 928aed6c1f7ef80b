"""Each command and each snippet of docs/exports.md runs, one after the other, on a dataset with failures."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT
from tests.test_docs_reading import made  # noqa: F401

PAGE = (ROOT / "docs" / "exports.md").read_text()
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", PAGE, flags=re.S)
PRINTED = {
    "webdataset": "s0%2Epng-w0 s0.png [",
    "lance": "['s0.png', ",
    "load_from_disk": "9 List(Value('float32'))",
    "mlcroissant": "9 b's0.png'",
}
"""A word of a snippet -> what it prints."""


def test_the_page_has_a_command_and_a_snippet_for_each() -> None:
    assert [kind for kind, _ in BLOCKS] == ["sh", "python"] * 4
    assert all(any(word in code for word in PRINTED) for kind, code in BLOCKS if kind == "python")


def test_all_of_it_runs(
    ray_session: Any,  # of `made`; tests with this name share one Ray
    made: Path,  # noqa: F811
    tmp_path: Path,
    called: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(made / ".demo", tmp_path / ".demo")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.chdir(tmp_path)
    for kind, code in BLOCKS:
        if kind == "sh":
            program, *args = shlex.split(code)
            assert program == "tessera"
            done = called(*args)
            assert (done.returncode, done.stderr) == (0, ""), code
            continue
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180, check=False)
        assert found.returncode == 0, found.stderr
        (expected,) = [text for word, text in PRINTED.items() if word in code]
        assert expected in found.stdout, found.stdout
    assert {one.name for one in (tmp_path / ".demo").iterdir()} == {"first", "webdataset", "first.lance", "hf"}
