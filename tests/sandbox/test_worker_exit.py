"""How the end of a worker process is put into words."""

from __future__ import annotations

import signal

import pytest

from pipeline.core.errors import DeviceFailed, FailureKind, StageName
from pipeline.sandbox.tasks import TaskRecord
from pipeline.sandbox.worker_exit import of_device, of_exit_code


@pytest.mark.parametrize(
    ("code", "step", "kind", "message"),
    [
        (-signal.SIGSEGV, "decode", "crash", "the decoder's process died while decoding (SIGSEGV)"),
        (-signal.SIGKILL, "probe", "memory", "the decoder's process was killed while opening: is memory short?"),
        (-signal.SIGKILL, "encode", "crash", "the encoder's process was killed while encoding: is memory short?"),
        (-signal.SIGKILL, None, "memory", "the decoder's process was killed: is memory short?"),
        (3, "tokenize", "crash", "the decoder's process ended itself while tokenizing (exit code 3)"),
        (0, None, "crash", "the decoder's process ended itself (exit code 0)"),
        (-250, None, "crash", "the decoder's process died (signal 250)"),
        (None, None, "crash", "the decoder's process died (signal 0)"),
    ],
)
def test_an_exit_code(code: int | None, step: StageName | None, kind: FailureKind, message: str) -> None:
    task = None if step is None else TaskRecord(1, 0, step, (b"file", None), 0)
    found = of_exit_code(code, task, encodes=step == "encode")
    assert (found.task, found.kind, found.message, found.over_limit, found.device) == (task, kind, message, False, None)


def test_an_encoder_that_dies_between_its_rows() -> None:
    found = of_exit_code(-signal.SIGKILL, None, encodes=True)
    assert (found.kind, found.message) == ("crash", "the encoder's process was killed: is memory short?")


def test_a_failure_of_the_device() -> None:
    error = DeviceFailed("features.x: the device failed", "CUDA error")
    found = of_device(error, None)
    assert (found.kind, found.device) == ("crash", error)
    assert found.message == "the device failed while encoding (CUDA error)"
