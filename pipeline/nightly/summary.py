"""The summary of a night: plain values with stable keys, kept where whoever is on call finds them.

It is written to one file of this machine for every outcome, at first with the status ``running``, and into the dataset,
where that can be written: ``_nights/latest.json``, and one file for each night.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import re
import secrets
from typing import Any, Literal

from pipeline import storage
from pipeline.core.errors import ConfigError, TesseraError, describe
from pipeline.core.terminal import json_text
from pipeline.dataset.commit.folder import DatasetFolder

CONTRACT = 1
"""Version of the summary's keys."""
Status = Literal["running", "complete", "partial", "failed"]
Step = Literal["submit", "prepare", "extract", "compact", "vacuum", "done"]
FOLDER = "_nights"
"""Folder of the summaries in a dataset."""
_NIGHT = re.compile(r"([0-9]{8}T[0-9]{6})-[0-9a-f]{4}\.json")
_TIME = "%Y%m%dT%H%M%S"


def new_night(started: datetime.datetime) -> str:
    """Returns the id of a night that begins at ``started`` (UTC)."""
    return f"{started:{_TIME}}-{secrets.token_hex(2)}"


def begin(config: str, started: datetime.datetime) -> dict[str, Any]:
    """Returns the summary of a night that begins. Times are ISO 8601 in UTC, durations in seconds.

    - ``status``: ``running``, ``complete``, ``partial`` (cut short by its deadline) or ``failed``.
    - ``exit_code``, ``try_again``: null while it runs; whether another attempt may work without any change.
    - ``cause``, ``step``, ``advice``: why it failed, on one line, in which step, and what to do.
    - ``committed``: whether this night committed a snapshot.
    - ``snapshot``: the newest one after the night, which readers see; null if it is not known.
    - ``samples_left``: samples that a deadline left for the next night.
    - ``lag``: see `pipeline.nightly.lag`.
    - ``alerts``: what is no error, and what somebody should look at.
    - ``webhook``: ``posted``, or why it was not called; null if there was no need to.
    - ``report``: the report of the run (docs/dataset.md); of one that broke off, if it has one; or null.
    - ``compact``, ``vacuum``: what they did, for each version, as the commands print it with ``--json``.

    Args:
        config: path of the config, as it was given.
        started: when the command began.
    """
    return {
        "contract": CONTRACT,
        "night": new_night(started),
        "status": "running",
        "exit_code": None,
        "try_again": None,
        "cause": None,
        "advice": None,
        "step": "prepare",
        "config": config,
        "output": None,
        "version": None,
        "host": platform.node(),
        "pid": os.getpid(),
        "started": _iso(started),
        "ended": None,
        "seconds": None,
        "run_id": None,
        "committed": False,
        "snapshot": None,
        "samples_left": None,
        "lag": {"samples": None, "since": None, "oldest_age_s": None},
        "alerts": [],
        "warnings": [],
        "webhook": None,
        "report": None,
        "compact": [],
        "vacuum": [],
    }


def end(summary: dict[str, Any], ended: datetime.datetime) -> None:
    """Adds when a night ended."""
    started = datetime.datetime.fromisoformat(summary["started"])
    summary.update(ended=_iso(ended), seconds=round((ended - started).total_seconds(), 3))


def local_path(config: str, given: str | None) -> str:
    """Returns the path of the summary on this machine.

    Args:
        config: path of the config.
        given: the path that the user chose. None: ``tessera/nightly/<name of the config>.json`` in
            ``XDG_STATE_HOME``, by default ``~/.local/state``.
    """
    if given is not None:
        return storage.absolute(given)
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    name = re.sub(r"[^A-Za-z0-9._-]", "_", os.path.splitext(os.path.basename(config))[0])
    return os.path.join(state, "tessera", "nightly", f"{name.lstrip('.') or 'config'}.json")


def write_local(summary: dict[str, Any], path: str) -> None:
    """Writes the summary to its file on this machine, in which one sees all of it or the one before.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        if storage.is_local(path):
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        storage.publish(path, _text(summary))
    except (OSError, TesseraError) as error:
        raise ConfigError(
            "--summary", f"cannot write {path!r} ({describe(error)})", "a file in a folder of yours"
        ) from error


def write_to_dataset(summary: dict[str, Any], output: str, keep_s: float) -> None:
    """Writes the summary into the dataset, and deletes those of nights that ended more than ``keep_s`` seconds ago.

    Raises:
        TesseraError: the storage cannot be written.
    """
    folder = DatasetFolder(output)
    folder.publish(f"{FOLDER}/{summary['night']}.json", _text(summary))
    folder.publish(f"{FOLDER}/latest.json", _text(summary))
    oldest = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=keep_s)
    for name in folder.list_files(FOLDER, ".json"):
        with contextlib.suppress(ValueError):
            match = _NIGHT.fullmatch(name)
            if match and datetime.datetime.strptime(f"{match[1]}+0000", f"{_TIME}%z") < oldest:
                folder.remove(f"{FOLDER}/{name}")


def _text(summary: dict[str, Any]) -> bytes:
    return f"{json.dumps(json.loads(json_text(summary)), indent=1)}\n".encode()


def _iso(moment: datetime.datetime) -> str:
    return moment.isoformat(timespec="milliseconds")
