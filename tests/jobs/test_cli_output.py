"""What commands print: JSON, whole lines at any width, and nothing raw from outside."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from tests.jobs.commands import tessera, write_config
from tests.support import ROOT
from tests.support.dataset_fixtures import RUNS, night


def _document(done: Any, code: int = 0) -> Any:
    """The one JSON document on standard output."""
    assert done.returncode == code, done
    assert done.stdout.endswith("\n")
    assert done.stdout.count("\n") == 1
    return json.loads(done.stdout, parse_constant=lambda name: pytest.fail(name))


def test_every_command_has_json() -> None:
    from jobs.cli import app

    group: Any = typer.main.get_command(app)
    jobs = group.commands.pop("jobs")
    for name, command in [*group.commands.items(), *jobs.commands.items()]:
        assert any("--json" in option.opts for option in command.params), name


def test_extract_prints_its_report_and_its_plan_as_json(
    tmp_path: Path, called: Callable[..., Any], extracting: Callable[..., Any]
) -> None:
    config = str(write_config(tmp_path))
    plan = _document(called("extract", config, "--plan", "--json"))
    assert (plan["samples"], plan["samples_by_class"]["new"], plan["files_by_role"]) == (2, 2, {"image": 2})
    assert list(plan["features"]["t"]["columns"]) == ["t_tokens", "t_grid"]
    assert not (tmp_path / "out").exists()
    done = tessera("extract", config, "--json", "--set", "failures.max_rows=0")
    first = _document(done, 3)
    assert done.stderr.startswith("tessera: 1 of 2 rows failed")
    report = json.loads((tmp_path / "out" / "v1" / "_runs" / first["run_id"] / "report.json").read_text())
    assert first == report
    again = _document(extracting("extract", config, "--json"))
    assert (again["samples_by_class"]["unchanged"], again["output"]) == (2, str(tmp_path / "out"))
    shown = _document(called("inspect", str(tmp_path / "out"), "--json", "--columns", "sample_id,t_grid"))
    assert shown["sample_rows"] == [{"sample_id": "a.png", "t_grid": [1, 2, 2]}]
    assert shown["failures"]["by_kind"] == {"empty": 1}
    unknown = called("inspect", str(tmp_path / "out"), "--json", "--columns", "t_grid", "--columns", "nope")
    assert (unknown.returncode, unknown.stdout, unknown.stderr.count("\n")) == (2, "", 1)
    assert unknown.stderr.startswith("tessera: --columns: there is no column 'nope'; one of: sample_id, ")
    broken = called("extract", str(tmp_path / "none.yaml"), "--json")
    assert (broken.returncode, broken.stdout, broken.stderr.count("\n")) == (2, "", 1)


def test_upkeep_prints_json(tmp_path: Path, called: Callable[..., Any]) -> None:
    for run_id, name in zip(RUNS[1:3], "ab", strict=True):
        night(tmp_path / "v1", run_id, [name, f"{name}{name}"])
    out = str(tmp_path)
    for args, expected in (
        (["compact", out], {"snapshot": 3, "files_rewritten": 2, "deleted_rows_left_out": 0}),
        (["forget", out, "a"], {"snapshot": 4, "files_rewritten": 1, "rows_and_failures_removed": 1}),
        (["vacuum", out, "--older-than", "7d"], {"files_deleted": 3}),
        (["rollback", out, "--to", "4"], {"snapshot": 6}),
    ):
        found = _document(called(*args, "--json"))
        assert found["dataset"] == out
        (version,) = found["versions"]
        assert {"version": "v1", **expected}.items() <= version.items()
    assert [one["snapshot"] for one in _document(called("snapshots", out, "--json"))["snapshots"]] == [4, 5, 6]
    for more in ([], ["--use", "v1"]):
        found = _document(called("versions", out, *more, "--json"))
        assert (found["current"], [one["version"] for one in found["versions"]]) == ("v1", ["v1"])
    assert _document(called("inspect", out, "--json", "--rows", "0"))["sample_rows"] == []
    (tmp_path / "v2" / "_running").mkdir(parents=True)
    (tmp_path / "v2" / "_running" / f"{RUNS[7]}.json").write_text('{"base": 0, "identity": "x"}')
    discarded = _document(called("discard", out, "v2", "--json"))
    assert discarded == {"dataset": out, "versions": [{"version": "v2", "runs_removed": 1}]}
    assert not (tmp_path / "v2").exists()
    for command in ("inspect", "snapshots", "versions", "compact", "forget", "vacuum", "discard"):
        more = ["a"] if command in ("forget", "discard") else []
        done = called(command, str(tmp_path / "none"), *more, "--json")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_the_demo_prints_json(called: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def checkpoints(folder: str) -> list[str]:
        print("a library's words")
        return [f"{folder}/clip", f"{folder}/bert"]

    def counts(folder: str) -> dict[str, int]:
        return {"pictures": 1, "broken": 0, "samples": 1}

    monkeypatch.setattr("pipeline.demo.models.build", checkpoints)
    monkeypatch.setattr("pipeline.demo.corpus.build", counts)
    done = called("models", "m", "--json")
    assert _document(done) == {"folder": "m", "checkpoints": ["m/clip", "m/bert"]}
    assert done.stderr == "a library's words\n"
    assert called("models", "m").stdout == "a library's words\nm/clip\nm/bert\n"
    done = called("corpus", "c", "--json")
    assert _document(done) == {"folder": "c", "samples": 1, "samples_by_kind": {"pictures": 1, "broken": 0}}
    assert called("corpus", "c").stdout == "1 sample: pictures 1, broken 0\n"


@pytest.mark.parametrize("width", [60, 80, 160])
def test_a_terminal_of_any_width_shows_whole_lines(tmp_path: Path, width: int) -> None:
    night(tmp_path / "o" / "v1", RUNS[1], ["a", "b"], {1: "corrupt"})
    out = str(tmp_path / "o")
    calls = [["inspect", out], ["snapshots", out], ["versions", out]]
    shown = EXPECTED.sub("", _in_terminal(calls, tmp_path, {**os.environ}, width))
    assert "…" not in shown.replace(", …]", "")
    for words in ("f_embedding: [", "f_tokens: 2 x 4 float16", RUNS[1], "v1 (current)"):
        assert words in shown
    for line in shown.splitlines():
        assert len(line) <= width or len(line.split()) == 2, line  # the dataset's path


def test_brackets_in_names_are_shown_as_they_are(
    tmp_path: Path, called: Callable[..., Any], extracting: Callable[..., Any]
) -> None:
    config = str(write_config(tmp_path, failures={"max_fraction": 1}, output={"path": str(tmp_path / "o[/b]")}))
    shutil.copy(tmp_path / "in" / "a.png", tmp_path / "in" / "x[red][1]:smile:.png")
    plan = called("extract", config, "--plan")
    assert (plan.returncode, plan.stderr) == (0, "")
    assert f"output: {tmp_path / 'o[/b]'}" in plan.stdout
    done = extracting("extract", config)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.rstrip().endswith(f"dataset: {tmp_path / 'o[/b]'}")
    shown = called("inspect", str(tmp_path / "o[/b]"))
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "x[red][1]:smile:.png" in shown.stdout


HOSTILE = "\x1b]0;pwned\x07\x1b[35;7mx\x9b31m\u202e\u2066\u200b\u2028\x7f\r\n[red]:smile:"
"""A title, colours in both forms, a reversal, hidden characters and line breaks; and `rich`'s own markup."""


EXPECTED = re.compile(r"\x1b\[[0-9;]*m|\x1b\[\?25[lh]|\x1b\[2K|\x1b\[1A|\r")
"""What `rich` writes: colours, and a bar that is drawn over itself."""


def _in_terminal(calls: list[list[str]], folder: Path, env: dict[str, str], width: int = 400) -> str:
    """What a terminal gets of these commands, which run in one process."""
    (folder / "calls.json").write_text(json.dumps(calls))
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (50, width))
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.jobs.programs.run_commands", str(folder / "calls.json")],
        cwd=ROOT,
        env={**env, "TERM": "xterm-256color", "COLUMNS": str(width), "PYTHONIOENCODING": "utf-8:surrogateescape"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    got = bytearray()
    with contextlib.suppress(OSError):  # how a terminal says that it was left
        while data := os.read(master, 1 << 16):
            got += data
    os.close(master)
    process.wait(10)
    return got.decode(errors="surrogateescape")


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_nothing_from_outside_reaches_a_terminal_raw(
    tmp_path: Path, engine: str, request: pytest.FixtureRequest
) -> None:
    """Names, keys, values and a dataset's contents through every command."""
    environment = request.getfixturevalue("shared_ray") if engine == "ray" else {**os.environ}
    name = HOSTILE.replace("/", "")
    raw = yaml.safe_load(write_config(tmp_path, failures={"max_fraction": 1}).read_text())
    shutil.copy(tmp_path / "in" / "a.png", tmp_path / "in" / f"{name}.png")
    (tmp_path / "in" / f"b{name}.png").write_bytes(b"")
    out = str(tmp_path / f"out{name}")
    raw["output"] = {"path": out}
    config, broken, missing = (tmp_path / f"{one}{name}.yaml" for one in ("c", "broken", "missing"))
    config.write_text(yaml.safe_dump(raw))
    broken.write_text("a: [")
    night(tmp_path / "theirs" / "v1", RUNS[1], [f"a{name}", "b", f"c{name}"], {1: name})
    snapshot = tmp_path / "theirs" / "v1" / "_snapshots" / "00000001.json"
    written = json.loads(snapshot.read_text())
    written |= {"created": name, "features": {"features": {name: {"a": name}}, "passthrough": {}}}
    snapshot.write_text(json.dumps(written))
    theirs = str(tmp_path / "theirs")
    calls = [
        ["extract", str(config), "--plan"],
        ["extract", str(config)],
        ["extract", str(missing)],
        ["extract", str(broken)],
        *(
            ["extract", str(config), "--set", one]
            for one in (name, f"{name}=1", f"output.{name}=1", f"output.path={name}")
        ),
        ["extract", str(config), "--set", "features.t.modality=" + json.dumps(name)],
        ["extract", str(config), "--set", "source.path=" + json.dumps(name)],
        ["extract", str(config), "--set", "compute.address=" + json.dumps(f"127.0.0.1:1{name}")],
        ["benchmark", str(missing)],
        *(["inspect", one, "--rows", "9"] for one in (out, theirs, name)),
        *([command, one] for command in ("snapshots", "versions", "compact", "vacuum") for one in (out, theirs, name)),
        *(["rollback", one, "--to", "1", *more] for one in (out, theirs) for more in ([], ["--version", name])),
        *(["forget", one, name] for one in (out, theirs, name)),
        ["vacuum", out, "--older-than", name],
        ["versions", out, "--use", name],
        ["inspect", f"--{name}"],
        ["inspect", out, "--rows", name],
        [name],
    ]
    reported = _in_terminal(calls, tmp_path, environment)
    assert reported.count("-- exit ") == len(calls), reported
    assert "\x1b[35;7m" not in reported
    left = EXPECTED.sub("", reported)
    assert {one for one in left if not one.isprintable()} == {"\n"}
    assert "Traceback" not in left
    escaped = r"\x1b]0;pwned\x07\x1b[35;7mx\x9b31m\u202e\u2066\u200b\u2028\x7f\r\n[red]:smile:"
    plan, run, *rest = re.split(r"-- exit \d+\n", left)
    assert plan.endswith(f"output: {out.removesuffix(name)}{escaped}\n")
    assert run.endswith(f"dataset: {out.removesuffix(name)}{escaped}\n")
    assert f"b{escaped}.png: zero bytes" in rest[10]
    assert left.count(escaped) > 20
