"""Each snippet and each command of docs/training.md runs, on a dataset of the README's first config."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

PAGE = (ROOT / "docs" / "training.md").read_text()
SNIPPETS = dict(re.findall(r"^##+ ([^\n]+)\n(?:(?!^##).)*?```python\n(.*?)```", PAGE, flags=re.M | re.S))
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, flags=re.S) for line in block.splitlines()]
PRINTED = {
    "Reading batches": "1 torch.Size([",
    "Contrastive": "torch.Size([",
    "Masked text": "torch.Size([16, 30]) ",
    "Masked images, videos and sound": "{'ratio': 0.75} [7, 7, ",
    "The same masks after a resume": "{'epoch': 3, 'rows': array([0, 1, 2, 3]), 'samples': ['",
}
"""What each snippet prints, among other things."""


@pytest.fixture(scope="module")
def made(models: Path, first_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``.demo/first`` and ``.demo/models``."""
    folder = tmp_path_factory.mktemp("training")
    (folder / ".demo").mkdir()
    (folder / ".demo" / "models").symlink_to(models)
    shutil.copytree(first_dataset, folder / ".demo" / "first")
    return folder


def _run(folder: Path, monkeypatch: pytest.MonkeyPatch, *args: str) -> str:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    done = subprocess.run([sys.executable, *args], cwd=folder, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_snippets_are_these() -> None:
    assert {*SNIPPETS} == {*PRINTED}


@pytest.mark.slow
@pytest.mark.parametrize("name", PRINTED)
def test_a_snippet_runs(made: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert PRINTED[name] in _run(made, monkeypatch, "-c", SNIPPETS[name])


def test_the_page_has_each_example() -> None:
    files = {path.stem for path in (ROOT / "jobs" / "examples").glob("*.py")}
    named = {shlex.split(command)[2].rpartition(".")[2] for command in COMMANDS}
    assert named == {name for name in files if not name.startswith("_")}
    assert {*re.findall(r"^\| `([a-z_]+)` \|", PAGE, flags=re.M)} <= named


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: shlex.split(command)[2].rpartition(".")[2])
def test_a_command_runs(made: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program, *args = shlex.split(command, comments=True)
    assert program == ".venv/bin/python"
    few = ["--epochs", "1"] if "distributed" in command else ["--steps", "8"]
    assert "at the end of " in _run(made, monkeypatch, *args, *few)
