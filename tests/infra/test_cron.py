"""The line of `infra/cron`: read as cron reads it, and run by its shell with real `flock` and `nice`. In place of
`tessera` is a program that ends as each test asks."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.infra.commands import parse
from tests.support import ROOT

CRON = ROOT / "infra" / "cron"
FAKE = Path(__file__).parent / "programs" / "fake_tessera.sh"
_FIELD = re.compile(r"(\*|\d+(-\d+)?(,\d+)*)(/\d+)?")

pytestmark = pytest.mark.skipif(shutil.which("flock") is None, reason="flock is not installed")


def _read(path: Path) -> tuple[dict[str, str], list[tuple[list[str], str, str]]]:
    """Returns the variables of a crontab in /etc/cron.d, and its lines: times, user, command."""
    variables, lines = {}, []
    for line in path.read_text().splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if match := re.fullmatch(r"(\w+)=(.*)", line):
            variables[match[1]] = match[2]
        else:
            *times, user, command = line.split(None, 6)
            lines.append((times, user, command))
    return variables, lines


@dataclass
class Cron:
    """Runs the line as cron does: with its shell, and its variables only."""

    folder: Path
    command: str
    variables: dict[str, str]

    def start(self) -> subprocess.Popen[str]:
        shell = [self.variables["SHELL"], "-c", self.command]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(shell, env=self.variables, cwd=self.folder, text=True, start_new_session=True, **pipes)

    def run(self) -> tuple[int, str]:
        """Returns the exit code, and what cron would mail."""
        process = self.start()
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    def set(self, **files: object) -> None:
        for name, content in files.items():
            (self.folder / "fake" / name).write_text(f"{content}\n")

    def calls(self) -> list[str]:
        path = self.folder / "fake" / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def log(self) -> str:
        return (self.folder / "logs" / "pictures.log").read_text()


@pytest.fixture
def cron(tmp_path: Path) -> Cron:
    for name in ("fake", "logs", "nights", "bin"):
        (tmp_path / name).mkdir()
    for source, name in ((FAKE, "tessera"), (CRON / "tessera-night", "tessera-night")):
        shutil.copy(source, tmp_path / "bin" / name)
        (tmp_path / "bin" / name).chmod(0o755)
    variables, ((_, _, command),) = _read(CRON / "tessera-nightly")
    here = {
        "PATH": f"{tmp_path}/bin:{variables['PATH']}",
        "TESSERA_LOGS": f"{tmp_path}/logs",
        "TESSERA_NIGHTS": f"{tmp_path}/nights",
        "TESSERA_DELAY_S": "0.1",
        "FAKE_TESSERA": f"{tmp_path}/fake",
    }
    return Cron(tmp_path, command.replace("/var/lib/tessera/", f"{tmp_path}/"), {**variables, **here})


def test_cron_reads_the_file() -> None:
    text = (CRON / "tessera-nightly").read_text()
    variables, lines = _read(CRON / "tessera-nightly")
    assert text.endswith("\n"), "cron ignores a last line without an end"
    assert set(variables) >= {"SHELL", "PATH", "MAILTO", "HOME"}
    assert "$" not in "".join(variables.values()), "cron expands no variables"
    for times, user, command in lines:
        assert len(times) == 5
        assert all(_FIELD.fullmatch(time) for time in times), times
        assert user == "tessera"
        assert "%" not in command, "cron makes a line break of it"
    assert not re.search(r"(?i)(key|secret|token|password)\w*=(?!/)", text), "a secret in a file that all may read"


def test_the_command_is_one_of_tessera(cron: Cron) -> None:
    assert cron.run() == (0, "")
    (call,) = cron.calls()
    _, values = parse(f"tessera {call}")
    assert (values["config"], values["deadline"]) == ("/etc/tessera/pictures.yaml", "4h")


def test_a_night_that_is_done_mails_nothing(cron: Cron) -> None:
    assert cron.run() == (0, "")
    summary = json.loads((cron.folder / "nights" / "pictures.json").read_text())
    assert summary["status"] == "complete"
    assert re.fullmatch(r"--- night of pictures, 20\d\d-.*\na line of the log\n", cron.log())


def test_exit_code_4_starts_the_night_again(cron: Cron) -> None:
    cron.set(codes="4\n4\n0")
    assert cron.run() == (0, "")
    assert len(cron.calls()) == 3
    assert cron.log().count("--- night of pictures") == 3


def test_the_last_start_mails_its_cause(cron: Cron) -> None:
    cron.set(codes="4")
    _, mail = cron.run()
    assert len(cron.calls()) == 4
    first, *_, last = mail.splitlines()
    assert first.startswith("tessera: the night of pictures failed with exit code 4; summary: ")
    assert last == "tessera: cause 4"


@pytest.mark.parametrize("code", [1, 2, 3])
def test_other_codes_are_not_tried_again(cron: Cron, code: int) -> None:
    cron.set(codes=code)
    _, mail = cron.run()
    assert len(cron.calls()) == 1
    assert f"exit code {code}" in mail.splitlines()[0]
    assert mail.splitlines()[-1] == f"tessera: cause {code}"


def test_a_night_that_still_runs_keeps_the_next_one_out(cron: Cron) -> None:
    cron.set(seconds=60)
    first = cron.start()
    _until(cron.folder / "fake" / "running")
    _, mail = cron.run()
    assert mail == "tessera: the night of pictures did not start: the last one still runs\n"
    assert len(cron.calls()) == 1
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()


def test_the_night_is_nice(cron: Cron) -> None:
    cron.set(seconds=60)
    process = cron.start()
    _until(cron.folder / "fake" / "running")
    pid = int((cron.folder / "fake" / "running").read_text())
    assert os.getpriority(os.PRIO_PROCESS, pid) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_start_that_takes_too_long_is_ended_and_continued(cron: Cron) -> None:
    cron.set(seconds=60)
    cron.variables["TESSERA_LIMIT"] = "1s"
    process = cron.start()
    _until(cron.folder / "fake" / "running")
    (cron.folder / "fake" / "seconds").unlink()
    assert process.communicate(timeout=30) == ("", None)
    assert len(cron.calls()) == 2
    assert (cron.folder / "fake" / "signals").read_text() == "main\n", "its children get no signal"


def test_a_stop_is_neither_repeated_nor_mailed(cron: Cron) -> None:
    cron.set(seconds=60)
    script = subprocess.Popen(
        [str(cron.folder / "bin" / "tessera-night"), "/etc/tessera/pictures.yaml"],
        env=cron.variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    _until(cron.folder / "fake" / "running")
    script.send_signal(signal.SIGTERM)
    output, _ = script.communicate(timeout=30)
    assert (script.returncode, output, len(cron.calls())) == (4, "", 1)
    assert (cron.folder / "fake" / "signals").read_text() == "main\n"


def test_a_stop_between_two_starts_ends_the_night(cron: Cron) -> None:
    cron.set(codes="4")
    script = subprocess.Popen(
        [str(cron.folder / "bin" / "tessera-night"), "/etc/tessera/pictures.yaml"],
        env={**cron.variables, "TESSERA_DELAY_S": "60"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    _until(cron.folder / "nights" / "pictures.json")
    time.sleep(0.5)
    script.send_signal(signal.SIGTERM)
    output, _ = script.communicate(timeout=30)
    assert (script.returncode, output, len(cron.calls())) == (4, "", 1)


def test_without_a_log_no_night_starts(cron: Cron) -> None:
    (cron.folder / "logs").rmdir()
    _, mail = cron.run()
    assert "pictures.log" in mail
    assert cron.calls() == []


@pytest.mark.skipif(shutil.which("logrotate") is None, reason="logrotate is not installed")
def test_the_log_is_rotated_also_while_a_night_runs(cron: Cron, tmp_path: Path) -> None:
    text = (CRON / "logrotate.conf").read_text().replace("/var/log/tessera", f"{tmp_path}/logs")
    user, group = (subprocess.check_output(["id", option, "-n"], text=True).strip() for option in ("-u", "-g"))
    config = tmp_path / "logrotate.conf"
    config.write_text(text.replace("tessera tessera", f"{user} {group}"))
    config.chmod(0o644)
    rotate = ["logrotate", "--force", "--state", str(tmp_path / "state"), str(config)]
    cron.set(codes="4\n4\n0", seconds=0.5)
    process = cron.start()
    _until(cron.folder / "fake" / "running")
    done = subprocess.run(rotate, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert process.communicate(timeout=60) == ("", None)
    logs = [(tmp_path / "logs" / name).read_text() for name in ("pictures.log.1", "pictures.log")]
    assert [log.count("--- night of pictures") for log in logs] == [1, 2]
    assert [log.count("tessera: cause 4") for log in logs] == [1, 1], "no line is lost"
    (cron.folder / "fake" / "seconds").unlink()
    time.sleep(0.3)  # for the processes of the last start, which hold the lock
    for _ in range(6):
        assert cron.run() == (0, "")
        subprocess.run(rotate, check=True, timeout=30)
    assert len(list((tmp_path / "logs").iterdir())) == 6, "five old ones are kept"


def _until(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.02)
