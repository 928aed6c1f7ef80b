"""The nights of a dataset, each as a job on a Ray cluster on Google Cloud, by the operator of Google's provider.

The Airflow Variable of the DAG's name holds the settings as JSON; infra/airflow/README.md explains them:
{"config": "/etc/tessera/pictures.yaml", "address": "http://HEAD:8265"}
"""

from __future__ import annotations

import re
import shlex
from typing import Any

from airflow.providers.google.cloud.operators.ray import RaySubmitJobOperator
from airflow.sdk import DAG
from tessera_night import LIMIT, RESERVE, TASK, TRY_AGAIN, check_limit, night_dag, outcome, required, setting


class NightOnRayOperator(RaySubmitJobOperator):
    """Runs `python -m jobs.nightly` as a Ray job, and maps its exit code as `TesseraSubmitOperator` does.

    `RaySubmitJobOperator` itself succeeds when its job fails, leaves the job when the task is stopped, and gives up
    after 30 minutes. Tessera must be installed on the nodes, and the config must be on the head node.

    Args:
        config: YAML file on the head node.
        deadline: after this the night takes no more work.
        wait: how long the night waits for another run of the dataset.
    """

    template_fields = (*RaySubmitJobOperator.template_fields, "config", "deadline", "wait")

    def __init__(self, *, config: str, deadline: str, wait: str, **options: Any) -> None:
        super().__init__(
            entrypoint="",
            wait_for_job_done=True,
            submit_job_timeout=LIMIT.total_seconds(),
            # a job that is stopped needs more than Ray's 3 s to release its dataset
            runtime_env={"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "60"}},
            **options,
        )
        self.config, self.deadline, self.wait = config, deadline, wait

    def execute(self, context: Any) -> dict[str, Any]:
        required(self.cluster_address, "address", self.dag_id)
        required(self.config, "config", self.dag_id)
        check_limit(self.execution_timeout, self.deadline, self.wait, RESERVE)
        options = ["--json", "--deadline", self.deadline, "--wait", self.wait]
        self.entrypoint = shlex.join(["python", "-m", "jobs.nightly", self.config, *options])
        self.metadata = {
            "tessera": "airflow",
            "program": "jobs.nightly",
            "config": self.config,
        }  # for `tessera jobs list`
        ti = context["ti"]
        self.submission_id = re.sub(r"\W+", "_", f"tessera_{ti.dag_id}_{ti.run_id}_{ti.try_number}", flags=re.ASCII)
        job = super().execute(context)
        details = self.hook.get_job_info(job_id=job, cluster_address=self.cluster_address)
        text = self.hook.get_job_logs(job_id=job, cluster_address=self.cluster_address)
        self.log.info("log of the job:\n%s", text)
        lines = text.splitlines()
        errors = [line for line in lines if line.startswith("tessera: ")]
        if details.status.value == "SUCCEEDED":
            code = 0
        else:  # none if the job was stopped, or its node was lost
            code = TRY_AGAIN if details.driver_exit_code is None else details.driver_exit_code
        found = errors[-1:] or (details.message or "").splitlines()[:1]
        return outcome(code, lines, found[0] if found else None)

    def on_kill(self) -> None:
        """Stops the job, which ends as soon as it has released its dataset."""
        if self.submission_id:
            self.log.info("stopping job %s", self.submission_id)
            self.hook.stop_job(job_id=self.submission_id, cluster_address=self.cluster_address)


def nights(dag_id: str, schedule: str) -> DAG:
    """Returns the DAG of one dataset, whose settings are in the Variable ``dag_id``."""
    with night_dag(dag_id, schedule, __doc__) as dag:
        NightOnRayOperator(
            cluster_address=setting(dag_id, "address"),
            config=setting(dag_id, "config"),
            **TASK,
        )
    return dag


dag = nights("tessera_nightly_google", "0 1 * * *")
