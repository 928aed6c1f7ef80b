"""The nights of a dataset, each as a job on a Ray cluster that `tessera submit --nightly` submits and follows.

The Airflow Variable of the DAG's name holds the settings as JSON; infra/airflow/README.md explains them:
{"config": "/etc/tessera/pictures.yaml", "address": "http://HEAD:8265", "tessera": "/opt/tessera/bin/tessera"}
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
from typing import Any

from airflow.sdk import DAG, BaseOperator
from airflow.sdk.exceptions import AirflowFailException
from tessera_night import RESERVE, TASK, check_limit, night_dag, outcome, required, setting

_JOB = re.compile(r"\bjob (raysubmit_\w+)")


class TesseraSubmitOperator(BaseOperator):
    """Runs `tessera submit CONFIG --nightly`, and maps its exit code: 0 success, 4 and signals another try, others a
    failure without another try. The XCom is the night's summary without its report.

    Args:
        config: YAML file on the worker.
        address: URL of the dashboard of the cluster.
        deadline: after this the night takes no more work.
        wait: how long the night waits for another run of the dataset.
        tessera: the command on the worker.
    """

    template_fields = ("config", "address", "deadline", "wait", "tessera")

    def __init__(
        self, *, config: str, address: str, deadline: str, wait: str, tessera: str = "tessera", **options: Any
    ) -> None:
        super().__init__(**options)
        self.config, self.address, self.tessera = config, address, tessera
        self.deadline, self.wait = deadline, wait
        self._process: subprocess.Popen[str] | None = None
        self._job: str | None = None
        self._stops = False

    def execute(self, context: Any) -> dict[str, Any]:
        for key in ("config", "address", "tessera"):
            required(getattr(self, key), key, self.dag_id)
        check_limit(self.execution_timeout, self.deadline, self.wait, RESERVE)
        # a list, and no shell: no value can add a command
        options = ["--address", self.address, "--deadline", self.deadline, "--wait", self.wait]
        command = [self.tessera, "submit", self.config, "--nightly", "--json", *options]
        self.log.info("command: %s", command)
        with tempfile.TemporaryFile("w+", errors="replace") as output:
            code, last_error = self._run(command, output)
            output.seek(0)
            return outcome(code, output, last_error)

    def _run(self, command: list[str], output: Any) -> tuple[int, str | None]:
        """Runs a command to its end; returns its exit code, and the last error in its log."""
        last_error = None
        try:
            self._process = process = self._start(command, stdout=output, stderr=subprocess.PIPE)
        except OSError as error:
            raise AirflowFailException(f"{command[0]!r} cannot be started: {error.strerror}") from error
        try:
            assert process.stderr is not None
            for line in process.stderr:
                self.log.info("%s", line.rstrip("\n"))
                if line.startswith("tessera: "):
                    last_error = line.strip()
                if match := _JOB.search(line):
                    self._job = match[1]
                    if self._stops:
                        self._stop_job()
            return process.wait(), last_error
        finally:
            if process.poll() is None:  # at the time limit
                process.terminate()

    def on_kill(self) -> None:
        """Stops the job: by itself it goes on when `tessera submit` ends."""
        self._stops = True
        if self._job is not None:
            self._stop_job()
        elif self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)  # it ends with the id of the job, if there is one

    def _stop_job(self) -> None:
        """Starts `tessera jobs stop`, which outlives this process: Airflow kills it 5 s after SIGTERM, and the job may
        take a minute to release its dataset."""
        job, self._job = self._job, None
        self.log.info("stopping job %s", job)
        command = [self.tessera, "jobs", "stop", str(job), "--address", self.address]
        self._start(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    @staticmethod
    def _start(command: list[str], **streams: Any) -> subprocess.Popen[str]:
        """Starts a command in a session of its own, without the secrets of Airflow's own settings."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW__")}
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
            text=True,
            errors="replace",
            **streams,
        )


def nights(dag_id: str, schedule: str) -> DAG:
    """Returns the DAG of one dataset, whose settings are in the Variable ``dag_id``."""
    with night_dag(dag_id, schedule, __doc__) as dag:
        TesseraSubmitOperator(
            config=setting(dag_id, "config"),
            address=setting(dag_id, "address"),
            tessera=setting(dag_id, "tessera", "tessera"),
            **TASK,
        )
    return dag


dag = nights("tessera_nightly", "0 1 * * *")
