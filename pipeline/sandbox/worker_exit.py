"""How a worker process ended, in words that a failure or an error can use."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from pipeline.core.errors import DeviceFailed, FailureKind, StageName
from pipeline.sandbox.tasks import TaskRecord

STEP_VERBS: dict[StageName, str] = {
    "probe": "opening",
    "decode": "decoding",
    "tokenize": "tokenizing",
    "encode": "encoding",
}


@dataclass(frozen=True)
class WorkerExit:
    """How a worker process ended, or why it must.

    Args:
        task: the task that it ran; None: it ran none.
        kind: kind of the failure.
        message: message of the failure.
        over_limit: the parent killed it, because the task was over a limit.
        device: the failure of its device, with which it cannot go on. None: the process ended.
    """

    task: TaskRecord | None
    kind: FailureKind
    message: str
    over_limit: bool
    device: DeviceFailed | None = None


def of_exit_code(code: int | None, task: TaskRecord | None, encodes: bool = False) -> WorkerExit:
    """Returns the exit of a process that ended by itself, or was killed by somebody else.

    Args:
        code: exit code, as of `subprocess.Popen`.
        task: the task that it ran; None: it ran none.
        encodes: it is the process of an encoder.
    """
    while_step = f" while {STEP_VERBS[task.step]}" if task else ""
    whose = "encoder's" if encodes else "decoder's"
    kind: FailureKind = "crash"
    if code == -signal.SIGKILL:
        kind = "crash" if whose == "encoder's" else "memory"
        message = f"the {whose} process was killed{while_step}: is memory short?"
    elif code is not None and code >= 0:
        message = f"the {whose} process ended itself{while_step} (exit code {code})"
    else:
        message = f"the {whose} process died{while_step} ({_signal_name(code)})"
    return WorkerExit(task, kind, message, over_limit=False)


def of_device(error: DeviceFailed, task: TaskRecord | None) -> WorkerExit:
    """Returns the exit of a process whose device failed."""
    return WorkerExit(task, "crash", f"the device failed while encoding ({error.words})", False, error)


def _signal_name(code: int | None) -> str:
    """Returns the name of the signal that an exit code means."""
    try:
        return signal.Signals(-(code or 0)).name
    except ValueError:
        return f"signal {-(code or 0)}"
