"""The DAGs of `infra/airflow`, loaded and run by a real Airflow in an environment of its own (`make airflow`). In place
of `tessera` is a program that ends as each test asks; the Google operator's jobs run on a real Ray of this machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline import dataset
from tests.infra.commands import parse
from tests.jobs.commands import write_config
from tests.support import ROOT
from tests.support.ray_cluster import RayCluster

PYTHON = Path(os.environ.get("TESSERA_AIRFLOW_PYTHON", ROOT / ".airflow" / "bin" / "python"))
FAKE = Path(__file__).parent / "programs" / "fake_tessera.sh"
PROGRAM = Path(__file__).parent / "programs" / "run_dags.py"
GOOGLE = "tessera_nightly_google"
SECRET = "secret-of-airflow"

if not PYTHON.exists():
    pytest.skip(f"no Airflow at {PYTHON}: make airflow", allow_module_level=True)
pytestmark = pytest.mark.timeout(600)


class Airflow:
    """An Airflow with a database of its own, and the folder `infra/airflow`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        tessera = folder / "tessera"
        tessera.write_text(FAKE.read_text())
        tessera.chmod(0o755)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "RAY_"))}
        settings = {"config": "/etc/tessera/pictures.yaml", "address": "http://head:8265", "tessera": str(tessera)}
        self.environment = {
            **kept,
            "AIRFLOW_HOME": str(folder),
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "infra" / "airflow"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
            "AIRFLOW__CORE__FERNET_KEY": "",
            "AIRFLOW__TEST__SECRET": SECRET,
            "AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT": "google-cloud-platform://",
            "AIRFLOW_VAR_TESSERA_NIGHTLY": json.dumps(settings),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self._run("-m", "airflow", "db", "migrate")

    def _run(self, *arguments: str, text: str = "", **variables: str) -> str:
        done = subprocess.run(
            [str(PYTHON), *arguments],
            input=text,
            capture_output=True,
            text=True,
            cwd=self.folder,
            env={**self.environment, **variables},
            timeout=400,
            check=False,
        )
        (self.folder / "output.log").write_text(done.stdout + done.stderr)
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        return done.stdout

    def fake(self, name: str, **files: object) -> Path:
        """Sets what the program in place of `tessera` does in a case."""
        folder = self.folder / name
        folder.mkdir()
        for file, content in files.items():
            (folder / file).write_text(f"{content}\n")
        return folder

    def run(self, cases: dict[str, dict[str, Any]], **variables: str) -> dict[str, Any]:
        """Returns what the folder holds, and the runs by the names of their cases; see `run_dags.py`."""
        output = self._run(str(PROGRAM), text=json.dumps(list(cases.values())), **variables)
        found: dict[str, Any] = json.loads(output.splitlines()[-1])
        return {**found, "runs": dict(zip(cases, found["runs"], strict=True)), "output": output}


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Airflow:
    return Airflow(tmp_path_factory.mktemp("airflow"))


@pytest.fixture(scope="module")
def found(airflow: Airflow) -> dict[str, Any]:
    """All cases of the plain operator, in one process: Airflow takes seconds to start."""

    def case(name: str, files: dict[str, object] | None = None, **more: Any) -> dict[str, Any]:
        folder = airflow.fake(name, **files or {})
        return {"dag": "tessera_nightly", "env": {"FAKE_TESSERA": str(folder)}, **more}

    cases = {
        "done": case("done"),
        "partial": case("partial", {"status": "partial"}),
        "again": case("again", {"codes": "4\n4\n0"}),
        "hopeless": case("hopeless", {"codes": "4"}),
        **{f"code_{code}": case(f"code_{code}", {"codes": code}) for code in (1, 2, 3, 127)},
        "stopped": case("stopped", {"seconds": 60}, retries=0, kill_at=str(airflow.folder / "stopped" / "running")),
        "stopped_early": case(
            "stopped_early",
            {"seconds": 60, "no_id": ""},
            retries=0,
            kill_at=str(airflow.folder / "stopped_early" / "running"),
        ),
        "limit": case(
            "limit", {"seconds": 60}, retries=0, limit_s=4, reserve_s=1, conf={"deadline": "1s", "wait": "1s"}
        ),
        "no_duration": case("no_duration", conf={"deadline": "4h; touch pwned"}),
        "too_long": case("too_long", conf={"deadline": "5h"}),
        "shorter": case("shorter", conf={"deadline": "30m", "config": "/tmp/other.yaml", "tessera": "/bin/false"}),
    }
    nothing = {"AIRFLOW_VAR_TESSERA_NIGHTLY": '{"config": "/etc/c.yaml"}'}
    cases["no_address"] = {"dag": "tessera_nightly", "env": nothing}
    gone = {"AIRFLOW_VAR_TESSERA_NIGHTLY": '{"config": "c", "address": "a", "tessera": "/nowhere/tessera"}'}
    cases["no_program"] = {"dag": "tessera_nightly", "env": gone}
    return airflow.run(cases)


def _calls(airflow: Airflow, name: str) -> list[str]:
    path = airflow.folder / name / "calls"
    return path.read_text().splitlines() if path.exists() else []


def test_the_folder_loads(airflow: Airflow) -> None:
    found = airflow.run({})
    assert found["errors"] == {}
    assert set(found["dags"]) == {"tessera_nightly", GOOGLE}
    for dag in found["dags"].values():
        assert (dag["schedule"], dag["catchup"], dag["max_active_runs"]) == ("0 1 * * *", False, 1)
        assert dag["params"] == {"deadline": "4h", "wait": "1h"}
        (task,) = dag["tasks"].values()
        assert (task["retries"], task["retry_delay_s"]) == (3, 600)
        assert task["limit_s"] == (4 + 1 + 1.5) * 3600, "the deadline, the wait, and 90 minutes"
        assert dag["limit_s"] > task["limit_s"]
        assert dag["limit_s"] < 24 * 3600
    kinds = {name: dag["tasks"]["night"]["kinds"] for name, dag in found["dags"].items()}
    assert "RaySubmitJobOperator" in kinds[GOOGLE]
    assert found["dags"][GOOGLE]["tasks"]["night"]["submit_job_timeout_s"] == 6.5 * 3600


@pytest.mark.slow
def test_the_command(airflow: Airflow, found: dict[str, Any]) -> None:
    (call,) = _calls(airflow, "done")
    options = "--nightly --json --address http://head:8265 --deadline 4h --wait 1h"
    assert call == f"submit /etc/tessera/pictures.yaml {options}"
    parse(f"tessera {call}")


@pytest.mark.slow
def test_a_night_that_is_done(found: dict[str, Any]) -> None:
    done = found["runs"]["done"]
    assert (done["state"], done["tries"], done["errors"]) == ("success", 1, [])
    assert done["xcom"] == {"night": "n1", "status": "complete", "exit_code": 0, "samples_left": 7}


@pytest.mark.slow
def test_a_partial_night_is_a_success_that_says_so(found: dict[str, Any]) -> None:
    partial = found["runs"]["partial"]
    assert (partial["state"], partial["tries"]) == ("success", 1)
    assert (partial["xcom"]["status"], partial["xcom"]["samples_left"]) == ("partial", 7)
    assert "the night is partial: 7 samples are left" in found["output"]


@pytest.mark.slow
def test_exit_code_4_is_tried_again(airflow: Airflow, found: dict[str, Any]) -> None:
    again, hopeless = found["runs"]["again"], found["runs"]["hopeless"]
    assert (again["state"], again["tries"], len(_calls(airflow, "again"))) == ("success", 3, 3)
    assert (hopeless["state"], hopeless["tries"], len(_calls(airflow, "hopeless"))) == ("failed", 4, 4)
    for error in (*again["errors"], *hopeless["errors"]):
        assert error.startswith("AirflowException: exit code 4 (interrupted, or a resource was lost): cause 4")


@pytest.mark.parametrize("code", [1, 2, 3, 127])
@pytest.mark.slow
def test_other_codes_are_not_tried_again(airflow: Airflow, found: dict[str, Any], code: int) -> None:
    run = found["runs"][f"code_{code}"]
    assert (run["state"], run["tries"], len(_calls(airflow, f"code_{code}"))) == ("failed", 1, 1)
    (error,) = run["errors"]
    assert error.startswith(f"AirflowFailException: exit code {code} (")
    assert error.endswith(f'cause {code}: a "quoted" word; advice {code}')


@pytest.mark.parametrize("name", ["stopped", "stopped_early"])
@pytest.mark.slow
def test_a_stop_of_the_task_stops_the_job(airflow: Airflow, found: dict[str, Any], name: str) -> None:
    """Also if `tessera submit` has not printed the id of its job yet."""
    submitted, stop = _calls(airflow, name)
    assert submitted.startswith("submit ")
    assert stop == "jobs stop raysubmit_tessera_1 --address http://head:8265"
    parse(f"tessera {stop}")
    assert found["runs"][name]["state"] == "failed"


@pytest.mark.slow
def test_the_limit_of_time_stops_the_job(airflow: Airflow, found: dict[str, Any]) -> None:
    run = found["runs"]["limit"]
    assert run["errors"][0].startswith("AirflowTaskTimeout: ")
    assert [call.split()[0] for call in _calls(airflow, "limit")] == ["submit", "jobs"]
    assert (airflow.folder / "limit" / "signals").read_text() == "main\n", "`tessera submit` ends too"


@pytest.mark.slow
def test_a_parameter_is_a_duration_and_nothing_else(airflow: Airflow, found: dict[str, Any]) -> None:
    """Who may start the DAG chooses neither config nor command."""
    refused = found["runs"]["no_duration"]
    assert refused["state"] is None
    assert "ParamValidationError" in refused["errors"][0]
    assert _calls(airflow, "no_duration") == []
    (call,) = _calls(airflow, "shorter")
    assert call.startswith("submit /etc/tessera/pictures.yaml ")
    assert "--deadline 30m" in call


@pytest.mark.slow
def test_a_deadline_beyond_the_limit_of_time_is_refused(airflow: Airflow, found: dict[str, Any]) -> None:
    (error,) = found["runs"]["too_long"]["errors"]
    assert error.startswith("AirflowFailException: the deadline, the wait and 1:30:00 exceed execution_timeout")
    assert _calls(airflow, "too_long") == []


@pytest.mark.slow
def test_what_is_missing_is_named(found: dict[str, Any]) -> None:
    words = "the Airflow Variable tessera_nightly (JSON) has no key 'address'"
    assert found["runs"]["no_address"]["errors"] == [f"AirflowFailException: {words}"]
    words = "'/nowhere/tessera' cannot be started: No such file or directory"
    assert found["runs"]["no_program"]["errors"] == [f"AirflowFailException: {words}"]


@pytest.mark.slow
def test_no_setting_of_airflow_reaches_tessera(airflow: Airflow, found: dict[str, Any]) -> None:
    environment = (airflow.folder / "done" / "environment").read_text()
    assert "PATH=" in environment
    assert "AIRFLOW__" not in environment
    assert SECRET not in environment


# -- the Google operator ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """A head, on which `python -m jobs.nightly CONFIG` is the program in place of `tessera`. The folder of the config
    says how it ends."""
    folder = tmp_path_factory.mktemp("cluster")
    package = folder / "package" / "jobs"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "nightly.py").write_text(
        "import os, sys\n"
        "os.environ['FAKE_TESSERA'] = os.path.dirname(sys.argv[1])\n"
        f"os.execv('/bin/sh', ['sh', {str(FAKE)!r}, 'nightly', *sys.argv[1:]])\n"
    )
    with RayCluster(folder, sys.executable, {"PYTHONPATH": str(package.parent)}, dashboard=True) as cluster:
        yield cluster


@pytest.mark.slow
def test_the_google_operator(airflow: Airflow, cluster: RayCluster) -> None:
    """With `RaySubmitJobOperator` itself the task would succeed each time."""
    url = f"http://{cluster.dashboard}"

    def case(name: str, files: dict[str, object], **more: Any) -> dict[str, Any]:
        settings = {"config": f"{airflow.fake(name, **files)}/it's one.yaml", "address": url}
        return {"dag": GOOGLE, "env": {"AIRFLOW_VAR_TESSERA_NIGHTLY_GOOGLE": json.dumps(settings)}, **more}

    running = airflow.folder / "google_stopped" / "running"
    cases = {
        "again": case("google_again", {"codes": "4\n0", "status": "partial"}),
        "wrong": case("google_wrong", {"codes": "2"}),
        "stopped": case("google_stopped", {"seconds": 60}, retries=0, kill_at=str(running)),
    }
    token = {name: cluster.environment[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
    found = airflow.run(cases, **token)
    again, wrong, stopped = found["runs"].values()
    assert (again["state"], again["tries"]) == ("success", 2)
    assert again["errors"][0].startswith("AirflowException: exit code 4 (interrupted, or a resource was lost): cause 4")
    assert again["xcom"] == {"night": "n2", "status": "partial", "exit_code": 0, "samples_left": 7}
    assert "a line of the log" in found["output"]
    assert (wrong["state"], wrong["tries"]) == ("failed", 1)
    assert wrong["errors"][0].startswith("AirflowFailException: exit code 2 (the config, ")
    assert stopped["state"] == "failed"
    assert "main" in (running.parent / "signals").read_text().splitlines(), "SIGTERM, and time to act on it"
    assert stopped["errors"][0].startswith("AirflowException: exit code 4 ")
    (call,) = _calls(airflow, "google_stopped")
    assert call == f"nightly {running.parent}/it's one.yaml --json --deadline 4h --wait 1h"
    assert cluster.environment["RAY_AUTH_TOKEN"] not in found["output"] + (airflow.folder / "output.log").read_text()


@pytest.mark.slow
def test_a_real_night_on_a_real_cluster(airflow: Airflow, tmp_path: Path) -> None:
    """By both operators, the second with nothing left to do."""
    config = write_config(tmp_path, failures={"max_fraction": 1.0})
    with RayCluster(tmp_path, dashboard=True) as cluster:
        cluster.add(cpus=1)
        url = f"http://{cluster.dashboard}"
        settings = {"config": str(config), "address": url, "tessera": str(Path(sys.executable).with_name("tessera"))}
        text = json.dumps(settings)
        cases = {
            "plain": {"dag": "tessera_nightly", "env": {"AIRFLOW_VAR_TESSERA_NIGHTLY": text}},
            "google": {"dag": GOOGLE, "env": {"AIRFLOW_VAR_TESSERA_NIGHTLY_GOOGLE": text}},
        }
        token = {name: cluster.environment[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
        found = airflow.run(cases, **token, HOME=str(tmp_path))
    for run in found["runs"].values():
        assert (run["state"], run["tries"], run["errors"]) == ("success", 1, []), found["output"][-3000:]
        assert (run["xcom"]["status"], run["xcom"]["exit_code"]) == ("complete", 0)
    assert dataset.open(str(tmp_path / "out")).to_arrow().num_rows == 1
    first, second = (found["runs"][name]["xcom"]["snapshot"] for name in cases)
    assert second >= first > 0
