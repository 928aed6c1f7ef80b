"""What the DAGs of this folder share: the DAG of a dataset's nights, and what the outcome of one means for Airflow."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, Param
from airflow.sdk.exceptions import AirflowException, AirflowFailException

TRY_AGAIN = 4
CODES = {
    1: "a bug, see the traceback in the log",
    2: "the config, a credential or a file must be corrected first",
    3: "more rows failed than `failures` allows; what was written is committed",
    TRY_AGAIN: "interrupted, or a resource was lost",
}
DURATION = r"^[0-9]+(\.[0-9]+)?[smhdw]$"
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SHOWN = ("night", "status", "exit_code", "run_id", "snapshot", "samples_left", "lag", "alerts", "warnings")
"""What of a summary becomes the XCom of the task. The report is in the dataset."""

RESERVE = timedelta(minutes=90)
"""What a night may take after its deadline, to commit, vacuum and compact."""
LIMIT = timedelta(hours=4 + 1) + RESERVE
"""Time limit of a task: the deadline, the wait, and the reserve."""
TASK: dict[str, Any] = {
    "task_id": "night",
    "deadline": "{{ params.deadline }}",
    "wait": "{{ params.wait }}",
    "execution_timeout": LIMIT,
    "retries": 3,
    "retry_delay": timedelta(minutes=10),
}
"""Arguments of the operator of a night."""

log = logging.getLogger(__name__)


def duration(text: str, name: str) -> timedelta:
    """Returns a duration such as ``4h``. Raises ``AirflowFailException`` if it is none."""
    if not re.fullmatch(DURATION, text):
        raise AirflowFailException(f"{name}: found {text!r}, not a number and one of s, m, h, d, w: 4h")
    return timedelta(**{_UNITS[text[-1]]: float(text[:-1])})


def required(value: str, key: str, variable: str) -> str:
    """Returns a value of the DAG's Variable. Raises ``AirflowFailException`` if it is not set."""
    if not value:
        raise AirflowFailException(f"the Airflow Variable {variable} (JSON) has no key {key!r}")
    return value


def check_limit(limit: timedelta | None, deadline: str, wait: str, reserve: timedelta) -> None:
    """Raises ``AirflowFailException`` if a task's time limit would end a night that keeps its deadline.

    Args:
        reserve: what a night takes beyond its deadline and its wait.
    """
    needed = duration(deadline, "deadline") + duration(wait, "wait") + reserve
    if limit is not None and needed > limit:
        raise AirflowFailException(f"the deadline, the wait and {reserve} exceed execution_timeout: {needed} > {limit}")


def documents(lines: Iterable[str]) -> list[dict[str, Any]]:
    """Returns the JSON objects among the lines of an output."""
    found = []
    for line in lines:
        if line.startswith("{"):
            try:
                document = json.loads(line)
            except ValueError:
                continue
            if isinstance(document, dict):
                found.append(document)
    return found


def outcome(code: int, output: Iterable[str], last_error: str | None) -> dict[str, Any]:
    """Returns what of a night becomes the XCom of its task.

    Args:
        code: exit code of the night; negative: minus the signal that ended it.
        output: lines of the standard output of `tessera` with ``--json``.
        last_error: the last error in its log.

    Raises:
        AirflowException: another try may succeed.
        AirflowFailException: no other try will.
    """
    found = documents(output)
    summary = next((one for one in reversed(found) if "night" in one and "exit_code" in one), {})
    job = next((one for one in reversed(found) if "ray_job" in one), {})
    if code == 0:
        result = {"status": "complete"} | {key: summary[key] for key in _SHOWN if key in summary}
        if result["status"] != "complete":
            log.warning("the night is %s: %s samples are left", result["status"], result.get("samples_left"))
        return result
    cause = summary.get("cause") or job.get("message") or last_error or "no cause was given, see the log"
    meaning = CODES.get(code, "ended by a signal" if code < 0 else "not a code of `tessera`: did it start?")
    advice = f"; {summary['advice']}" if summary.get("advice") else ""
    words = f"exit code {code} ({meaning}): {cause}{advice}"
    raise AirflowException(words) if code == TRY_AGAIN or code < 0 else AirflowFailException(words)


def night_dag(dag_id: str, schedule: str, doc: str | None) -> DAG:
    """Returns the DAG of a dataset's nights, without its task."""
    return DAG(
        dag_id,
        schedule=schedule,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        catchup=False,  # a night brings the dataset up to date, whatever nights were missed
        max_active_runs=1,
        dagrun_timeout=timedelta(hours=23),
        params={
            "deadline": Param("4h", type="string", pattern=DURATION, description="After this no more work is taken."),
            "wait": Param("1h", type="string", pattern=DURATION, description="For another run of the dataset."),
        },
        tags=["tessera"],
        doc_md=doc,
    )


def setting(dag_id: str, key: str, default: str = "") -> str:
    """Returns a template of a value in the JSON of the Airflow Variable ``dag_id``."""
    return f"{{{{ var.json.get('{dag_id}', {{}}).get('{key}', '{default}') }}}}"
