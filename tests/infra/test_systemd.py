"""The units of `infra/systemd`: checked by the programs of systemd, and run by a systemd. In place of `tessera` is a
program that ends as each test asks."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.infra.commands import parse
from tests.infra.systemd_machine import UNITS, USER_ID, SystemdMachine, can_boot
from tests.jobs.commands import write_config
from tests.support import ROOT

FAKE = Path(__file__).parent / "programs" / "fake_tessera.sh"
NIGHT, ALERT, TIMER = (f"tessera-{name}" for name in ("nightly@%s.service", "alert@%s.service", "nightly@%s.timer"))
_ANALYZE = shutil.which("systemd-analyze")
needs_analyze = pytest.mark.skipif(_ANALYZE is None, reason="systemd-analyze is not installed")


def _lines(path: Path, key: str) -> list[str]:
    """Returns the values of a key of a unit file, in order."""
    return re.findall(rf"^{key}=(.*)$", path.read_text(), flags=re.M)


# -- without a systemd -----------------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A root folder with the units, and what they start, installed as the README says."""
    units = tmp_path / "etc" / "systemd" / "system"
    units.mkdir(parents=True)
    for name in ("nightly@.service", "nightly@.timer", "alert@.service"):
        text = (UNITS / f"tessera-{name}").read_text()
        (units / f"tessera-{name}").write_text(text.replace("/opt/tessera", str(tmp_path / "opt" / "tessera")))
    for program in ("bin/tessera", "lib/tessera-alert"):
        path = tmp_path / "opt" / "tessera" / program
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    return units


def _analyze(*arguments: str, units: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:", "LC_ALL": "C"}
    return subprocess.run(
        [str(_ANALYZE), *arguments], capture_output=True, text=True, env=environment, timeout=60, check=False
    )


@needs_analyze
@pytest.mark.parametrize("drop_in", [None, "credentials", "cluster", "gpu", "metrics"])
def test_systemd_accepts_each_unit(installed: Path, drop_in: str | None) -> None:
    if drop_in is not None:
        folder = installed / "tessera-nightly@.service.d"
        folder.mkdir()
        text = (UNITS / "drop-ins" / f"{drop_in}.conf").read_text()
        (folder / f"{drop_in}.conf").write_text(text.replace("/opt/tessera", str(installed.parents[2] / "opt/tessera")))
    names = [str(installed / (unit % "pictures")) for unit in (NIGHT, ALERT, TIMER)]
    for name in names:
        template = re.sub("@.*[.]", "@.", name)
        shutil.copy(template, name)
    done = _analyze("verify", "--recursive-errors=no", *names, units=installed)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_analyze
def test_systemd_finds_a_mistake_in_a_unit(installed: Path) -> None:
    """So that the test above can fail."""
    path = installed / (NIGHT % "pictures")
    text = (installed / "tessera-nightly@.service").read_text().replace("Type=exec", "Type=oneshot")
    path.write_text(text)
    done = _analyze("verify", "--recursive-errors=no", str(path), units=installed)
    assert done.returncode != 0
    assert "RestartForceExitStatus" in done.stderr


@needs_analyze
def test_the_night_is_little_exposed(installed: Path) -> None:
    """2.0 of 10: network, a look at all processes, and compiled code are what remains."""
    unit = installed / (NIGHT % "pictures")
    shutil.copy(installed / "tessera-nightly@.service", unit)
    done = _analyze("security", "--offline=true", "--threshold=20", str(unit), units=installed)
    assert done.returncode == 0, done.stdout


def test_the_command_lines_are_commands_of_tessera() -> None:
    for path in (UNITS / "tessera-nightly@.service", UNITS / "drop-ins" / "cluster.conf"):
        (command,) = filter(None, _lines(path, "ExecStart"))
        parse(command.replace("%S", "/var/lib").replace("%i", "pictures"))


def test_the_folder_of_the_metrics_is_made_as_the_unit_and_the_docs_name_it() -> None:
    (folder,) = _lines(UNITS / "drop-ins" / "metrics.conf", "ReadWritePaths")
    for readme in (UNITS / "README.md", ROOT / "infra" / "cron" / "README.md"):
        assert folder.removeprefix("-") == _metrics_folder(readme)[-1]
        assert f"`metrics.textfile: {folder.removeprefix('-')}/tessera.prom`" in readme.read_text()
    assert f"`metrics.textfile: {folder.removeprefix('-')}/" in (ROOT / "docs" / "operating.md").read_text()


def _metrics_folder(readme: Path) -> list[str]:
    """Returns the command that makes the folder, from a README."""
    (command,) = re.findall(r"^install -d .* -g prometheus .*$", readme.read_text(), flags=re.M)
    return str(command).split()


def test_starts_of_a_night_fit_into_a_day() -> None:
    """If every start runs into its limit of time, the night fails before the next one begins: the starts and their
    delays fall into one interval of the limit of starts, which ends before the next night."""
    hours = {"d": 24, "h": 1, "min": 1 / 60, "s": 1 / 3600}

    def time_of(text: str) -> float:
        return sum(float(number) * hours[unit] for number, unit in re.findall(r"([\d.]+)([a-z]+)", text))

    night = UNITS / "tessera-nightly@.service"
    for path in (night, UNITS / "drop-ins" / "cluster.conf"):
        read = {
            key: (_lines(path, key) or _lines(night, key))[-1]
            for key in ("RuntimeMaxSec", "RestartSec", "TimeoutStopSec", "StartLimitBurst", "StartLimitIntervalSec")
        }
        one = sum(time_of(read[key]) for key in ("RuntimeMaxSec", "RestartSec", "TimeoutStopSec"))
        (delay,) = _lines(UNITS / "tessera-nightly@.timer", "RandomizedDelaySec")
        interval = time_of(read["StartLimitIntervalSec"])
        assert int(read["StartLimitBurst"]) * one < interval < 24 - time_of(delay), path.name
        deadline = re.search(r"--deadline (\w+)", path.read_text())
        wait = re.search(r"--wait (\w+)", path.read_text())
        assert deadline is not None
        needed = time_of(deadline[1]) + (time_of(wait[1]) if wait else 0)
        assert needed + 1.5 <= time_of(read["RuntimeMaxSec"]), path.name


def test_what_would_break_a_night_is_not_set() -> None:
    """Each of these looks like hardening; the unit says why it is left out."""
    parsed = configparser.ConfigParser(strict=False, interpolation=None)
    parsed.optionxform = str
    parsed.read(UNITS / "tessera-nightly@.service")
    service = parsed["Service"]
    left_out = {"ProtectProc", "ProcSubset", "PrivatePIDs", "MemoryDenyWriteExecute", "PrivateNetwork", "IPAddressDeny"}
    assert not left_out & set(service)
    assert service["OOMPolicy"] == "continue"


# -- with a systemd --------------------------------------------------------------------------------------

NAMES = ("done", "again", "hopeless", "wrong", "stopped", "limited", "overlap", "timed", "secret", "real")
"""Configs, one for each test."""
EXPORTER_GROUP = 61_235


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemdMachine]:
    if not can_boot():
        pytest.skip("a systemd of its own needs root, systemd and unshare")
    machine = SystemdMachine(tmp_path_factory.mktemp("machine"))
    opt, settings = machine.folder / "opt" / "tessera", machine.folder / "etc" / "tessera"
    packages = sysconfig.get_path("purelib").replace(str(ROOT), "/opt/checkout")
    python = f"LD_LIBRARY_PATH=/opt/python/lib PYTHONPATH=/opt/checkout:{packages} /opt/python/bin/python3"
    programs = {
        "bin/tessera": FAKE.read_text(),
        "lib/tessera-alert": (UNITS / "tessera-alert").read_text(),
        "bin/sendmail": "#!/bin/sh\ncat >>/var/out/mail\n",
        "bin/real": f'#!/bin/sh\nexec env {python} -m jobs.cli "$@"\n',
    }
    for name, text in programs.items():
        (opt / name).parent.mkdir(parents=True, exist_ok=True)
        (opt / name).write_text(text)
        (opt / name).chmod(0o755)
    (settings / "credentials").mkdir(parents=True)
    for name in NAMES:
        (settings / f"{name}.environment").write_text(f"FAKE_TESSERA=/var/fake/{name}\n")
        fake = machine.var / "fake" / name
        fake.mkdir(parents=True)
        os.chown(fake, USER_ID, USER_ID)
    (settings / "alert.environment").write_text(
        "ALERT_MAIL_TO=oncall@example.org\nALERT_SENDMAIL=/opt/tessera/bin/sendmail\n"
    )
    (settings / "credentials" / "aws").write_text("[default]\naws_access_key_id = key\n")
    (settings / "credentials" / "aws").chmod(0o600)
    machine.drop_in("tessera-nightly@.service", "[Service]\nRestartSec=100ms\nReadWritePaths=-/var/fake\n", "fake.conf")
    machine.drop_in("tessera-nightly@limited.service", "[Service]\nRuntimeMaxSec=1s\n", "limit.conf")
    every_second = "[Timer]\nOnCalendar=\nOnCalendar=*:*:*\nRandomizedDelaySec=0\nAccuracySec=100ms\n"
    machine.drop_in("tessera-nightly@timed.timer", every_second, "timer.conf")
    credentials = (UNITS / "drop-ins" / "credentials.conf").read_text()
    looks = "stat -c %%a%%u $AWS_SHARED_CREDENTIALS_FILE; cat $AWS_SHARED_CREDENTIALS_FILE; touch /etc/x /home/x /srv/x"
    replaced = f"{credentials}ExecStart=\nExecStart=/bin/sh -c '{looks}'\n"
    machine.drop_in("tessera-nightly@secret.service", replaced, "x.conf")
    real = "/opt/tessera/bin/real nightly /var/fake/real/c.yaml --deadline 4h --summary %S/tessera/nights/%i.json"
    machine.drop_in("tessera-nightly@real.service", f"[Service]\nExecStart=\nExecStart={real}\n", "x.conf")
    metrics = (UNITS / "drop-ins" / "metrics.conf").read_text()
    machine.drop_in("tessera-nightly@real.service", metrics, "metrics.conf")
    try:
        machine.__enter__()
    except OSError as error:
        pytest.skip(f"no systemd starts here: {error}")
    yield machine
    machine.__exit__()


def _fake(machine: SystemdMachine, name: str, **files: object) -> Path:
    """Sets what the program in place of `tessera` does for a config."""
    folder = machine.var / "fake" / name
    for file, content in files.items():
        (folder / file).write_text(f"{content}\n")
    return folder


def _calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines() if (folder / "calls").exists() else []


def _until(exists: Path) -> None:
    deadline = time.monotonic() + 30
    while not exists.exists():
        assert time.monotonic() < deadline, exists
        time.sleep(0.05)


def test_a_night_that_is_done(machine: SystemdMachine) -> None:
    folder = _fake(machine, "done")
    assert machine.systemctl("start", NIGHT % "done").returncode == 0
    state = machine.until_settled(NIGHT % "done")
    assert (state["ActiveState"], state["Result"]) == ("inactive", "success")
    summary = machine.var / "lib" / "tessera" / "nights" / "done.json"
    assert json.loads(summary.read_text())["status"] == "complete"
    assert summary.stat().st_uid == USER_ID
    (call,) = _calls(folder)
    assert call == "nightly /etc/tessera/done.yaml --deadline 4h --summary /var/lib/tessera/nights/done.json"
    assert machine.output(ALERT % "done") == ""


def test_exit_code_4_starts_the_night_again(machine: SystemdMachine) -> None:
    folder = _fake(machine, "again", codes="4\n4\n0")
    machine.systemctl("start", NIGHT % "again")
    _until_calls(folder, 3)
    state = machine.until_settled(NIGHT % "again")
    assert (state["ActiveState"], state["Result"]) == ("inactive", "success")
    assert len(_calls(folder)) == 3
    assert machine.output(ALERT % "again") == ""


def test_after_the_last_start_somebody_is_called(machine: SystemdMachine) -> None:
    folder = _fake(machine, "hopeless", codes="4")
    machine.systemctl("start", NIGHT % "hopeless")
    _until_calls(folder, 4)
    state = machine.until_settled(NIGHT % "hopeless")
    assert (state["ActiveState"], state["Result"]) == ("failed", "start-limit-hit")
    machine.until_settled(ALERT % "hopeless")
    assert len(_calls(folder)) == 4
    alert = machine.output(ALERT % "hopeless")
    assert alert.count("the night of hopeless failed") == 1
    assert 'cause 4: a \\"quoted\\" word' in alert


@pytest.mark.parametrize("code", [1, 2, 3])
def test_other_codes_are_not_tried_again(machine: SystemdMachine, code: int) -> None:
    folder = _fake(machine, "wrong", codes=code)
    for name in ("calls",):
        (folder / name).unlink(missing_ok=True)
    (machine.var / "out" / "mail").unlink(missing_ok=True)
    machine.systemctl("reset-failed", NIGHT % "wrong")
    machine.systemctl("start", NIGHT % "wrong")
    state = machine.until_settled(NIGHT % "wrong")
    assert (state["ActiveState"], state["Result"], state["ExecMainStatus"]) == ("failed", "exit-code", str(code))
    _until(machine.var / "out" / "mail")
    machine.until_settled(ALERT % "wrong")
    assert len(_calls(folder)) == 1
    assert f"<3>tessera: the night of wrong failed (exit-code, exit status {code}): cause {code}" in machine.output(
        ALERT % "wrong"
    )
    mail = (machine.var / "out" / "mail").read_text()
    assert mail.startswith("To: oncall@example.org\nSubject: tessera: the night of wrong failed\n\n")
    assert json.loads(mail.splitlines()[-1])["exit_code"] == code


def test_a_stop_is_neither_repeated_nor_reported(machine: SystemdMachine) -> None:
    """And SIGTERM goes to the main process only."""
    folder = _fake(machine, "stopped", seconds=60)
    machine.systemctl("start", NIGHT % "stopped")
    _until(folder / "running")
    assert machine.systemctl("stop", NIGHT % "stopped").returncode == 0
    time.sleep(1)  # ten times the delay of a restart
    state = machine.until_settled(NIGHT % "stopped")
    assert (state["ActiveState"], state["Result"]) == ("inactive", "success")
    assert len(_calls(folder)) == 1
    assert (folder / "signals").read_text().splitlines() == ["main"]
    assert machine.output(ALERT % "stopped") == ""


def test_the_limit_of_time_ends_a_night_which_is_continued(machine: SystemdMachine) -> None:
    folder = _fake(machine, "limited", seconds=60)
    machine.systemctl("start", NIGHT % "limited")
    _until(folder / "running")
    (folder / "seconds").unlink()
    _until_calls(folder, 2)
    state = machine.until_settled(NIGHT % "limited")
    assert (state["Result"], len(_calls(folder))) == ("success", 2)


def test_a_night_that_still_runs_is_not_started_twice(machine: SystemdMachine) -> None:
    folder = _fake(machine, "overlap", seconds=60)
    for _ in range(2):
        assert machine.systemctl("start", NIGHT % "overlap").returncode == 0
    _until(folder / "running")
    assert len(_calls(folder)) == 1
    machine.systemctl("stop", NIGHT % "overlap")


def test_the_timer_starts_the_night(machine: SystemdMachine) -> None:
    folder = _fake(machine, "timed", seconds=60)
    assert machine.systemctl("start", TIMER % "timed").returncode == 0
    _until(folder / "running")
    assert machine.show(TIMER % "timed", "Persistent")["Persistent"] == "yes"
    machine.systemctl("stop", TIMER % "timed", NIGHT % "timed")


def test_secrets_are_read_by_the_night_only_and_it_writes_nowhere_else(machine: SystemdMachine) -> None:
    machine.systemctl("start", NIGHT % "secret")
    machine.until_settled(NIGHT % "secret")
    output = machine.output(NIGHT % "secret")
    assert output.startswith(f"400{USER_ID}\n[default]\naws_access_key_id = key\n"), output
    assert output.count("Read-only file system") + output.count("Permission denied") == 3
    shown = machine.systemctl("show", NIGHT % "secret").stdout
    assert "AWS_SHARED_CREDENTIALS_FILE=/run/credentials" in shown
    assert "aws_access_key_id" not in shown


def test_a_real_night_runs_within_what_the_unit_allows(machine: SystemdMachine) -> None:
    """With decoders in sandboxes of their own, shared memory and limits of memory; and with metrics that node_exporter
    may read."""
    folder = machine.var / "fake" / "real"
    made = machine.run([one.replace("prometheus", str(EXPORTER_GROUP)) for one in _metrics_folder(UNITS / "README.md")])
    assert made.returncode == 0, made.stderr
    metrics = {"textfile": "/var/lib/node_exporter/tessera.prom"}
    config = write_config(folder, engine={"kind": "local"}, failures={"max_fraction": 1.0}, metrics=metrics)
    for path in (config, *folder.rglob("*")):
        os.chown(path, USER_ID, USER_ID)
    machine.systemctl("start", NIGHT % "real")
    state = machine.until_settled(NIGHT % "real", 200)
    output = machine.output(NIGHT % "real")
    assert state["Result"] == "success", output
    summary = json.loads((machine.var / "lib" / "tessera" / "nights" / "real.json").read_text())
    assert (summary["status"], summary["step"], summary["exit_code"]) == ("complete", "done", 0), output
    assert (summary["report"]["rows_written"], summary["report"]["rows_failed"]) == (1, 1), output
    textfile = machine.var / "lib" / "node_exporter" / "tessera.prom"
    assert 'tessera_night_exit_code{config="default"} 0' in textfile.read_text()
    found = textfile.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o077) == (USER_ID, EXPORTER_GROUP, 0o040)


def _until_calls(folder: Path, count: int) -> None:
    deadline = time.monotonic() + 30
    while len(_calls(folder)) < count:
        assert time.monotonic() < deadline, (_calls(folder), [path.name for path in folder.iterdir()])
        time.sleep(0.05)
