"""The summary of a night is found in the log of its job, and nothing else is taken for one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs import _job_night
from jobs._job_output import LogLines

_SUMMARY = {"contract": 1, "night": "20260101T000000-00aa", "status": "partial", "cause": None, "exit_code": 0}


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_the_summary_is_kept_and_every_other_line_written(size: int) -> None:
    written: list[str] = []
    finder = _job_night._SummaryFinder(written.append)
    lines = LogLines(finder)
    text = f"extract: 3/9\n{json.dumps(_SUMMARY)}\nthe end"
    for start in range(0, len(text), size):
        lines(text[start : start + size])
    lines.close()
    assert "".join(written) == "extract: 3/9\nthe end\n"
    assert finder.summary == _SUMMARY


@pytest.mark.parametrize(
    "line",
    ['{"contract": 1', '{"contract": 1}', json.dumps({**_SUMMARY, "exit_code": "0"}), "x " + json.dumps(_SUMMARY)],
)
def test_what_is_no_summary_is_a_line(line: str) -> None:
    written: list[str] = []
    finder = _job_night._SummaryFinder(written.append)
    finder(line)
    assert (written, finder.summary) == ([f"{line}\n"], None)


def test_a_night_that_is_not_submitted_has_a_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def submit(config: Any) -> Any:
        raise AssertionError

    with pytest.raises(SystemExit) as ended:
        _load_fails(tmp_path, submit)
    assert ended.value.code == 2
    found = json.loads((tmp_path / "s.json").read_text())
    assert (found["status"], found["step"], found["exit_code"]) == ("failed", "submit", 2)
    assert capsys.readouterr().err == "tessera: c.yaml: cannot be read; a file\n"


def _load_fails(folder: Path, submit: Any) -> None:
    from pipeline.core.errors import ConfigError

    def load() -> Any:
        raise ConfigError("c.yaml", "cannot be read", "a file")

    _job_night.follow_night("c.yaml", str(folder / "s.json"), 0, False, submit, load)
