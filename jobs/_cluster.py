"""Jobs on a Ray cluster, by the API of its dashboard: submits, lists and stops them."""

from __future__ import annotations

import logging
import os
import re
import secrets
import shlex
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import jobs
import pipeline
from jobs._job_package import copy_of_package, with_absolute_paths
from pipeline.core.errors import ConfigError, TesseraError, describe
from pipeline.core.redaction import has_secret, is_secret_assignment, without_secrets

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

    from pipeline.config.models import PipelineConfig

ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"
ANSWER_S = 10.0
"""Longest wait for the dashboard to accept a connection, and then for each part of its answer."""
_SUBMIT_S = 60.0
"""Longest wait until the cluster has taken a job."""
_STOP_S = 60
"""How long a job that is stopped may take to release its dataset, before Ray kills it, in seconds."""
_EVERY_S = 1.0
_OURS = "tessera"
"""Key of the metadata of jobs that Tessera submitted."""


def connect(address: str | None) -> JobSubmissionClient:
    """Returns the client of a cluster's dashboard.

    Args:
        address: URL of the dashboard. None: ``RAY_API_SERVER_ADDRESS``.

    Raises:
        ConfigError: no address, none of a dashboard, no answer, or another token.
    """
    where = "--address" if address else ADDRESS_VARIABLE
    address = address or os.environ.get(ADDRESS_VARIABLE)
    advice = "the URL of the cluster's dashboard, such as http://HEAD:8265"
    if not address:
        raise ConfigError("--address", f"not given, and {ADDRESS_VARIABLE} is not set", advice)
    url = (address if "://" in address else f"http://{address}").rstrip("/")
    if has_secret(url):
        raise ConfigError(where, "a URL with a password", f"{advice}; the token comes from RAY_AUTH_TOKEN")
    host, port = _host_and_port(url)
    if host is None:
        raise ConfigError(where, repr(address), advice)
    try:
        socket.create_connection((host, port), timeout=ANSWER_S).close()
    except OSError as error:
        raise ConfigError(where, f"nothing answers at {url!r} ({describe(error)})", advice) from error
    os.environ[ADDRESS_VARIABLE] = url  # Ray's client takes these variables before its argument
    with errors_of_dashboard(where, url):
        return _client(url)


def _host_and_port(url: str) -> tuple[str | None, int]:
    """Returns host and port of an HTTP URL; no host if it is no such URL."""
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:  # of a port that is no number
        return None, 0
    return (parts.hostname if parts.scheme in ("http", "https") else None), port


def _client(url: str) -> JobSubmissionClient:
    from ray.job_submission import JobSubmissionClient

    class Client(JobSubmissionClient):  # type: ignore[misc]  # Ray has no types
        """Ray's client, with a time limit for each request: Ray's waits for ever."""

        def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
            submits = method == "POST" and endpoint == "/api/jobs/"  # it waits until a node takes the job
            return super()._do_request(method, endpoint, timeout=_SUBMIT_S if submits else ANSWER_S, **options)

    for name in list(logging.root.manager.loggerDict):  # each has its own level, and logs each folder that is sent
        if name.startswith("ray."):
            logging.getLogger(name).setLevel(logging.WARNING)
    return Client(url)


@contextmanager
def errors_of_dashboard(where: str, what: str) -> Iterator[None]:
    """Raises errors of Ray's client as errors of one line."""
    try:
        yield
    except TesseraError:
        raise
    except Exception as error:  # what `requests` raises, and RuntimeError with the answer's text
        if type(error).__name__ == "AuthenticationError" or re.search(r"status code 40[13]\b", str(error)):
            words = "asks for its token, and this process has none, or another one"
            advice = "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, as on the cluster's head"
            raise ConfigError(where, f"{what!r} {words}", advice) from error
        advice = "see that it is the dashboard of a Ray cluster, and its logs"
        raise ConfigError(where, f"{what!r} does not answer as it should ({describe(error)})", advice) from error


def submit(
    client: JobSubmissionClient,
    config: PipelineConfig,
    command: Sequence[str],
    name: str,
    variables: dict[str, str],
    send_package: bool,
) -> str:
    """Submits a job, and returns its id.

    Args:
        config: sent to the cluster as ``config.json``, with absolute paths.
        command: a module, and its arguments, in which ``config.json`` is the config.
        name: name of the config, for lists of jobs.
        variables: environment of the job and its workers.
        send_package: send the folders ``pipeline`` and ``jobs``. False: they are on the cluster's nodes.

    Raises:
        ConfigError: the cluster refuses it.
    """
    environment = {"RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_S), **variables}
    runtime_env: dict[str, Any] = {"env_vars": environment}
    with tempfile.TemporaryDirectory(prefix="tessera-submit-") as folder:
        work = Path(folder) / "work"
        work.mkdir()
        (work / "config.json").write_text(with_absolute_paths(config).model_dump_json())
        runtime_env["working_dir"] = str(work)
        if send_package:
            runtime_env["py_modules"] = [copy_of_package(module, Path(folder)) for module in (pipeline, jobs)]
        metadata = {_OURS: pipeline.__version__, "config": name, "output": config.output.path, "program": command[0]}
        entrypoint = shlex.join(["python", "-m", *command])
        with errors_of_dashboard("--address", client.get_address()):
            job = f"raysubmit_tessera_{secrets.token_hex(6)}"
            deadline = time.monotonic() + _SUBMIT_S
            while not _take(client, job, entrypoint=entrypoint, runtime_env=runtime_env, metadata=metadata):
                if time.monotonic() > deadline:
                    raise TesseraError(
                        f"no node of the cluster has taken a job within {_SUBMIT_S:g} s: see its dashboard"
                    )
                time.sleep(_EVERY_S)
            return job


def _take(client: JobSubmissionClient, job: str, **options: Any) -> bool:
    """Submits a job. Returns False if the cluster has no node yet that takes jobs, as in its first seconds."""
    try:
        client.submit_job(submission_id=job, **options)
    except OSError:
        if not _is_there(client, job):  # else only the answer was lost
            raise
    except RuntimeError as error:
        if "No available agent to submit job" not in str(error):
            raise
        return False
    return True


def _is_there(client: JobSubmissionClient, job: str) -> bool:
    """Returns whether the cluster has taken a job."""
    try:
        client.get_job_info(job)
    except Exception:  # whatever it is, the caller has the first error
        return False
    return True


def environment_of(assignments: Sequence[str]) -> dict[str, str]:
    """Returns the variables of ``NAME=VALUE`` each.

    Raises:
        ConfigError: one holds a secret, which Ray would write to its logs and show on its dashboard.
    """
    found = {}
    for one in assignments:
        name, equals, value = one.partition("=")
        if not equals or not name:
            raise ConfigError("--env", repr(without_secrets(one)), "write NAME=VALUE")
        if is_secret_assignment(name, value):
            allowed = "set it on the cluster's nodes, or give them a role: Ray logs what travels with a job"
            raise ConfigError("--env", f"{name} holds a secret", allowed)
        found[name] = value
    return found


def details(client: JobSubmissionClient, job: str) -> JobDetails:
    """Returns what is known of a job. Raises ``ConfigError`` if there is none of that id."""
    with errors_of_dashboard("--address", client.get_address()):
        try:
            return client.get_job_info(job)
        except RuntimeError as error:
            if "status code 404" not in str(error):
                raise
            raise ConfigError("ID", f"no job {job!r} on this cluster", "one of `tessera jobs list`") from error


def ours(client: JobSubmissionClient) -> list[JobDetails]:
    """Returns the jobs that Tessera submitted, the newest first."""
    with errors_of_dashboard("--address", client.get_address()):
        found = [one for one in client.list_jobs() if one.submission_id and _OURS in (one.metadata or {})]
    return sorted(found, key=lambda one: one.start_time or 0, reverse=True)


def stop(client: JobSubmissionClient, job: str) -> JobDetails:
    """Stops a job, and waits until it has ended. The dataset stays valid; the same submission continues it."""
    details(client, job)
    with errors_of_dashboard("--address", client.get_address()):
        client.stop_job(job)
    deadline = time.monotonic() + _STOP_S + ANSWER_S
    while True:
        try:
            if (found := client.get_job_info(job)).status.is_terminal():
                return found
        except Exception as error:  # the dashboard is busy: what counts is whether the job ends
            logging.getLogger(__name__).debug("no answer: %s", error)
        if time.monotonic() > deadline:
            raise TesseraError(f"job {job} has not ended within {_STOP_S} s: see the dashboard")
        time.sleep(_EVERY_S)
