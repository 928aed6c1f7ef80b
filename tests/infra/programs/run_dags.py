"""Loads and runs the DAGs of `infra/airflow`. Runs in an environment with Airflow, without Tessera's packages.

Usage: run_dags.py < CASES. CASES is a JSON list of objects: `dag`, and as needed `conf` (parameters of the run), `env`
(variables), `retries`, `limit_s` (time limit of the task), `reserve_s` (what the DAG's module reserves), `kill_at` (a
file: when it is there, this process gets SIGTERM, as from Airflow). The last line of the output is the result in JSON:
`errors` and `dags` of the folder, and `runs`, one for each case.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.configuration import conf
from airflow.dag_processing.dagbag import BundleDagBag
from airflow.models.xcom import XComModel
from airflow.sdk.execution_time import task_runner
from airflow.utils.session import create_session


def bag() -> BundleDagBag:
    """Reads the folder as Airflow's processor of DAGs does."""
    folder = Path(conf.get_mandatory_value("core", "dags_folder"))
    return BundleDagBag(dag_folder=folder, bundle_path=folder, bundle_name="dags-folder")


def described(dag: Any) -> dict[str, Any]:
    """Returns what a DAG and its tasks are."""
    tasks = {}
    for task in dag.tasks:
        tasks[task.task_id] = {
            "kinds": [one.__name__ for one in type(task).__mro__],
            "retries": task.retries,
            "retry_delay_s": task.retry_delay.total_seconds(),
            "limit_s": task.execution_timeout.total_seconds(),
            "values": {field: getattr(task, field) for field in task.template_fields},
            "submit_job_timeout_s": getattr(task, "submit_job_timeout", None),
        }
    return {
        "tasks": tasks,
        "schedule": dag.schedule,
        "catchup": dag.catchup,
        "max_active_runs": dag.max_active_runs,
        "limit_s": dag.dagrun_timeout.total_seconds(),
        "params": dict(dag.params.dump()),
    }


def run(dag: Any, case: dict[str, Any]) -> dict[str, Any]:
    """Runs a DAG with all its tries, without the delays between them."""
    os.environ.update(case.get("env", {}))
    (task,) = dag.tasks
    task.retries = case.get("retries", task.retries)
    module = type(task).on_kill.__globals__  # `dag.test` reads the file again, and so replaces the one in sys.modules
    limit, reserve, task.retry_delay = task.execution_timeout, module["RESERVE"], timedelta(0)
    if "limit_s" in case:
        task.execution_timeout = timedelta(seconds=case["limit_s"])
    module["RESERVE"] = timedelta(seconds=case.get("reserve_s", reserve.total_seconds()))
    errors: list[str] = []
    mapped = task_runner._run_task_and_map_outcome

    def noted(*arguments: Any) -> Any:
        state, message, error = mapped(*arguments)
        if error is not None:
            errors.append(f"{type(error).__name__}: {error}")
        return state, message, error

    task_runner._run_task_and_map_outcome = noted
    if "kill_at" in case:
        threading.Thread(target=kill, args=(Path(case["kill_at"]),), daemon=True).start()
    try:
        done = dag.test(run_conf=case.get("conf"))
    except Exception as error:
        return {"state": None, "tries": 0, "xcom": None, "errors": [f"{type(error).__name__}: {error}"]}
    finally:
        task_runner._run_task_and_map_outcome = mapped
        task.execution_timeout, module["RESERVE"] = limit, reserve
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    (ti,) = done.get_task_instances()
    query = XComModel.get_many(run_id=done.run_id, dag_ids=[dag.dag_id], task_ids=["night"], key="return_value")
    with create_session() as session:
        values = [one.value for one in session.scalars(query)]
    xcom = json.loads(values[0]) if values and isinstance(values[0], str) else next(iter(values), None)
    return {"state": str(ti.state), "tries": ti.try_number, "xcom": xcom, "errors": errors}


def kill(running: Path) -> None:
    """Sends SIGTERM to this process when a file is there."""
    while not running.exists():
        time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    cases, found = json.load(sys.stdin), bag()
    dags = {name: described(dag) for name, dag in found.dags.items()}
    runs = [run(found.dags[case["dag"]], case) for case in cases]
    print(json.dumps({"errors": found.import_errors, "dags": dags, "runs": runs}, default=str))
