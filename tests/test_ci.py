""".ci/run: installs the packages of Debian that are missing, as root only.

In place of `make` and `apt-get` are programs that write down how they are called.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import ROOT

PROGRAMS = {"prometheus": "promtool", "logrotate": "logrotate", "systemd": "systemd-analyze"}
"""Package -> a program of it."""


def _ran(folder: Path, user_id: int, *installed: str) -> tuple[list[str], str]:
    """Runs it on a machine that has the given programs. Returns the calls and standard error."""
    record = 'echo "${0##*/} $* ${DEBIAN_FRONTEND:-}" >>"$CALLS"\n'
    scripts = {"make": record, "apt-get": record, "id": f"echo {user_id}\n", **dict.fromkeys(installed, "")}
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}")
        (folder / name).chmod(0o755)
    (folder / "dirname").symlink_to(str(shutil.which("dirname")))
    calls = folder / "calls"
    done = subprocess.run(
        [str(shutil.which("bash")), str(ROOT / ".ci" / "run")],
        env={"PATH": str(folder), "CALLS": str(calls)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [line.strip() for line in calls.read_text().splitlines()], done.stderr


def test_nothing_is_installed_where_all_is_there(tmp_path: Path) -> None:
    calls, errors = _ran(tmp_path, 0, *PROGRAMS.values())
    assert calls == ["make checks", "make tools", "make airflow", "make test"]
    assert errors == ""


@pytest.mark.parametrize("missing", PROGRAMS)
def test_root_installs_what_is_missing_without_questions(tmp_path: Path, missing: str) -> None:
    calls, _ = _ran(tmp_path, 0, *(program for package, program in PROGRAMS.items() if package != missing))
    apt = [call for call in calls if call.startswith("apt-get")]
    assert apt == [
        "apt-get update -qq noninteractive",
        f"apt-get install -y -qq --no-install-recommends {missing} noninteractive",
    ]


def test_another_user_gets_one_line_and_the_tests(tmp_path: Path) -> None:
    calls, errors = _ran(tmp_path, 1000)
    assert calls[-1] == "make test"
    assert not [call for call in calls if call.startswith("apt-get")]
    assert errors == ".ci/run: not installed, and this user is not root: prometheus logrotate systemd\n"
