"""Jobs on a Ray cluster, by the API of its dashboard: submits them, follows their logs, lists and stops them."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import jobs
import pipeline
from pipeline import config as configs
from pipeline import storage
from pipeline.config.models import PipelineConfig
from pipeline.core.errors import ConfigError, TesseraError, describe
from pipeline.core.redaction import has_secret, is_secret_assignment, without_secrets

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

_ANSWER_S = 10.0
"""Longest wait for the dashboard to accept a connection."""
_STOP_S = 60
"""How long a job that is stopped may take to release its dataset, before Ray kills it, in seconds."""
_RETRIES_S = 60.0
"""For how long the dashboard is asked again after it stopped to answer."""
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
    where = "--address" if address else "RAY_API_SERVER_ADDRESS"
    address = address or os.environ.get("RAY_API_SERVER_ADDRESS")
    advice = "the URL of the cluster's dashboard, such as http://HEAD:8265"
    if not address:
        raise ConfigError("--address", "not given, and RAY_API_SERVER_ADDRESS is not set", advice)
    url = address if "://" in address else f"http://{address}"
    if has_secret(url):
        raise ConfigError(where, "a URL with a password", f"{advice}; the token comes from RAY_AUTH_TOKEN")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(where, repr(address), advice)
    port = _port(parts.port, parts.scheme)
    try:
        socket.create_connection((parts.hostname, port), timeout=_ANSWER_S).close()
    except OSError as error:
        raise ConfigError(where, f"nothing answers at {url!r} ({describe(error)})", advice) from error
    from ray.job_submission import JobSubmissionClient

    for name in list(logging.root.manager.loggerDict):  # each has its own level, and tells of each folder that is sent
        if name.startswith("ray."):
            logging.getLogger(name).setLevel(logging.WARNING)
    with _errors(where, url):
        return JobSubmissionClient(url)


def _port(port: int | None, scheme: str) -> int:
    return port if port is not None else 443 if scheme == "https" else 80


@contextmanager
def _errors(where: str, what: str) -> Iterator[None]:
    """Raises errors of Ray's client as errors of one line."""
    try:
        yield
    except (ConfigError, TesseraError):
        raise
    except Exception as error:  # the client raises what `requests` does, and RuntimeError with the answer's text
        if "AuthenticationError" in type(error).__name__ or "401" in str(error) or "403" in str(error):
            words = "asks for its token, and this process has none, or another one"
            advice = "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, as on the cluster's head"
            raise ConfigError(where, f"{what!r} {words}", advice) from error
        raise ConfigError(where, f"{what!r} refuses ({describe(error)})", "see the dashboard's logs") from error


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
        command: the program and its arguments: a module, then arguments, in which ``config.json`` is the config.
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
        (work / "config.json").write_text(_everywhere(config).model_dump_json())
        runtime_env["working_dir"] = str(work)
        if send_package:
            runtime_env["py_modules"] = [_copy_of_package(module, Path(folder)) for module in (pipeline, jobs)]
        metadata = {_OURS: pipeline.__version__, "config": name, "output": config.output.path, "program": command[0]}
        entrypoint = shlex.join(["python", "-m", *command])
        with _errors("--address", client.get_address()):
            return str(client.submit_job(entrypoint=entrypoint, runtime_env=runtime_env, metadata=metadata))


def _everywhere(config: PipelineConfig) -> PipelineConfig:
    """Returns a config whose local paths do not depend on the working directory."""
    config = configs.here(config)
    source = config.source.model_copy(update={"path": storage.absolute(config.source.path)})
    return config.model_copy(update={"source": source})


def _copy_of_package(module: Any, folder: Path) -> str:
    """Copies a package without what Python has cached in it, so that its digest depends on its code only."""
    target = folder / module.__name__
    shutil.copytree(Path(module.__file__).parent, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    return str(target)


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


def follow(client: JobSubmissionClient, job: str, write: Callable[[str], None]) -> JobDetails:
    """Writes the log of a job until it ends, and returns what is known of it.

    Raises:
        TesseraError: the dashboard has not answered for a minute. The job may go on.
    """
    seen, failing_since = 0, None
    while True:
        try:
            for text in _new_log(client, job, seen):
                write(text)
                seen += len(text)
            details = client.get_job_info(job)
            failing_since = None
            if details.status.is_terminal():
                return details
        except (RuntimeError, OSError, ValueError) as error:
            failing_since = failing_since or time.monotonic()
            if time.monotonic() - failing_since > _RETRIES_S:
                raise TesseraError(
                    f"the dashboard does not answer any more ({describe(error)}): job {job} may go on; "
                    f"see `tessera jobs status {job}`"
                ) from error
        time.sleep(_EVERY_S)


def _new_log(client: JobSubmissionClient, job: str, seen: int) -> Iterator[str]:
    """Yields what a job writes, without the first ``seen`` characters, until the log or the connection ends."""
    loop = asyncio.new_event_loop()
    tail = client.tail_job_logs(job)
    try:
        with suppress(StopAsyncIteration):
            while True:
                text = str(loop.run_until_complete(anext(tail)))
                if seen >= len(text):
                    seen -= len(text)
                    continue
                yield text[seen:]
                seen = 0
    finally:
        with suppress(Exception):
            loop.run_until_complete(tail.aclose())
        loop.close()


def details(client: JobSubmissionClient, job: str) -> JobDetails:
    """Returns what is known of a job. Raises ``ConfigError`` if there is none of that id."""
    try:
        return client.get_job_info(job)
    except RuntimeError as error:
        if "404" in str(error):
            raise ConfigError("ID", f"no job {job!r} on this cluster", "one of `tessera jobs list`") from error
        raise TesseraError(f"the dashboard refuses: {describe(error)}") from error


def ours(client: JobSubmissionClient) -> list[JobDetails]:
    """Returns the jobs that Tessera submitted, the newest first."""
    with _errors("--address", client.get_address()):
        found = [one for one in client.list_jobs() if one.submission_id and _OURS in (one.metadata or {})]
    return sorted(found, key=lambda one: one.start_time or 0, reverse=True)


def stop(client: JobSubmissionClient, job: str) -> JobDetails:
    """Stops a job, and waits until it has ended. The dataset stays valid; the same submission continues it."""
    details(client, job)
    with _errors("ID", job):
        client.stop_job(job)
        deadline = time.monotonic() + _STOP_S + _ANSWER_S
        while not (found := client.get_job_info(job)).status.is_terminal():
            if time.monotonic() > deadline:
                raise TesseraError(f"job {job} has not ended within {_STOP_S} s: see the dashboard")
            time.sleep(_EVERY_S)
    return found
