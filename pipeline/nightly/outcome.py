"""Exit codes of a night: what to try again, and what will never work before somebody changes something."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile

from pipeline import storage
from pipeline.core.errors import BudgetExceeded, ConfigError, TesseraError, describe, one_line
from pipeline.core.terminal import size
from pipeline.dataset.commit.lease import InUse
from pipeline.storage.retry import denied, expired, full, is_transient, without_credentials

DONE, DEFECT, NEVER, FAILURES, AGAIN = 0, 1, 2, 3, 4
"""Done; a defect of Tessera; it will never work before somebody changes something; more failed rows than allowed, what
was written is committed; another attempt may work."""


def exit_code(error: BaseException) -> int:
    """Returns the exit code of a night that ``error`` ended.

    A storage that does not answer is worth another attempt, also where it is noticed before anything is computed; one
    that refuses the credentials is not, also where it is noticed late; nor is a disk that is full.
    """
    if isinstance(error, BudgetExceeded):
        return FAILURES
    if not isinstance(error, TesseraError):
        return DEFECT if isinstance(error, Exception) else AGAIN
    if _is_refused(error) or full(error):
        return NEVER
    if isinstance(error, ConfigError):
        return AGAIN if _has_no_answer(error.__cause__) else NEVER
    return AGAIN


def cause(error: BaseException) -> str:
    """Returns the cause on one line."""
    if isinstance(error, TesseraError):
        return one_line(str(error))
    return describe(error) if isinstance(error, Exception) else "interrupted"


def advice(error: BaseException, output: str | None) -> str:
    """Returns what to do, on one line.

    Args:
        error: what ended the night.
        output: path or URL of the dataset. None: it is not known.
    """
    code = exit_code(error)
    if _is_refused(error):
        return (
            "give the process credentials that the storage accepts, for the corpus and the output (a role, a profile, "
            "AWS_ACCESS_KEY_ID), then run again: it continues"
        )
    if full(error):
        now = f"now, after unfinished files were removed: {_free(output)}"
        return f"make room on the volume that is full, then run again: it continues ({now})"
    if isinstance(error, InUse):
        return "wait for the other run; --wait waits longer by itself"
    if isinstance(error, ConfigError) and error.where.startswith("source"):
        return (
            "see that the corpus is there and complete (a mount, a bucket, source.path), check with `tessera extract "
            "CONFIG --plan`, then run again; nothing was deleted"
        )
    if code == FAILURES:
        return f"`tessera inspect {output}` shows the failures; what was written is committed"
    if code == DEFECT:
        return "report it with the traceback in the log, then run again: it continues"
    if code == NEVER:
        return "correct what the cause names, then run again: it continues"
    return "run again: it continues"


def _is_refused(error: BaseException) -> bool:
    """Returns whether a storage refuses the credentials, or there are none."""
    return denied(error) or expired(error) or without_credentials(error)


def _has_no_answer(cause: BaseException | None) -> bool:
    """Returns whether an error comes from a server that does not answer, or whose name is not known for the moment: one
    behind a service of Kubernetes has no name while it starts again."""
    while cause is not None:
        if is_transient(cause) or isinstance(cause, socket.gaierror):
            return True
        cause = cause.__cause__
    return False


def _free(output: str | None) -> str:
    """Returns how much is free on this machine where a night writes."""
    places = [tempfile.gettempdir(), "/dev/shm"]
    if output is not None and storage.is_local(output):
        places.insert(0, storage.split(output)[1])
    found = []
    for place in places:
        with contextlib.suppress(OSError):
            usage = shutil.disk_usage(place)
            found.append(f"{size(usage.free)} of {size(usage.total)} free at {place}")
    return ", ".join(found)
