"""`tessera doctor` reports what a machine lacks, computes nothing and leaves no file."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline import run
from pipeline.core.errors import ConfigError
from pipeline.core.terminal import Console
from pipeline.engine.inline import InlineEngine
from pipeline.run import doctor
from tests.stages.media_fixtures import IMAGE, config


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "in" / "a.png")
    return tmp_path / "in"


def _shown(document: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> str:
    doctor.show(document, Console(width=300))
    return capsys.readouterr().out


def test_a_machine_that_has_all(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bound = run.prepare(config(corpus, {"i": IMAGE}), engine_name="inline")
    found = doctor.examine(bound, None)
    (node,) = found["nodes"]
    assert node["problem"] is None
    assert _shown(found, capsys) == f"engine: inline (by name)\nnode {node['node']}: has all that this config needs\n"
    doctor.check(found)
    assert os.listdir(tmp_path) == ["in"]
    json.dumps(found)


def test_a_dataset_that_is_there_is_left_as_it_is(corpus: Path, tmp_path: Path) -> None:
    bound = run.prepare(config(corpus, {"i": IMAGE}), engine_name="inline")
    run.extract(bound, show_progress=False)
    before = sorted(tmp_path.rglob("*"))
    doctor.examine(bound, None)
    assert sorted(tmp_path.rglob("*")) == before


def test_each_machine_s_problem_is_reported(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bound = run.prepare(config(corpus, {"i": IMAGE}), engine_name="inline")
    problems = [("a", None), ("b", ("output.path", "it does not see it", "a shared folder"))]
    monkeypatch.setattr(InlineEngine, "check_nodes", lambda *_: problems)
    found = doctor.examine(bound, None)
    assert "\nnode b: output.path: it does not see it; a shared folder\n" in _shown(found, capsys)
    with pytest.raises(ConfigError, match=r"doctor: 1 of 2 nodes cannot work; mend what is said of each"):
        doctor.check(found)


def test_a_checkpoint_that_vanishes_after_it_was_bound(corpus: Path, models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "clip", tmp_path / "clip")
    encoder = {"kind": "clip", "checkpoint": str(tmp_path / "clip")}
    feature = {"modality": "image", "tokenizer": {"kind": "patch"}, "encoder": encoder}
    bound = run.prepare(config(corpus, {"i": feature}), engine_name="inline")
    assert doctor.examine(bound, None)["nodes"][0]["problem"] is None
    (corpus / "a.png").unlink()
    with pytest.raises(ConfigError, match="source"):
        doctor.examine(bound, None)


def test_the_command(called: Callable[..., Any], corpus: Path, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(config(corpus, {"i": IMAGE}).model_dump_json())
    done = called("doctor", str(path), "--engine", "inline")
    assert done.returncode == 0, done.stderr
    assert "has all that this config needs" in done.stdout
    document = json.loads(called("doctor", str(path), "--engine", "inline", "--json").stdout)
    assert document["engine"] == {"kind": "inline", "reason": "by name"}
    bad = called("doctor", str(path), "--engine", "inline", "--set", "source.path=nowhere")
    assert bad.returncode == 2
    assert "source.path" in bad.stderr
