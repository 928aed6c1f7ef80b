"""Exit codes separate what to try again from what will never work."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import botocore.exceptions
import pytest

from pipeline.core.errors import BudgetExceeded, ConfigError, StorageError, TesseraError
from pipeline.dataset.commit.lease import InUse
from pipeline.nightly import outcome


def _from(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


def _answer(status: int, code: str) -> Exception:
    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return botocore.exceptions.ClientError(response, "PutObject")  # type: ignore[arg-type]


_CONFIG = ("output.path", "cannot be written", "a folder")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError(*_CONFIG), 2),
        (_from(ConfigError(*_CONFIG), PermissionError(errno.EACCES, "denied")), 2),
        (_from(ConfigError(*_CONFIG), TimeoutError("no answer")), 4),
        (_from(ConfigError(*_CONFIG), ConnectionRefusedError()), 4),
        (_from(ConfigError(*_CONFIG), socket.gaierror(-2, "Name or service not known")), 4),
        (_from(ConfigError(*_CONFIG), _answer(503, "SlowDown")), 4),
        (_from(ConfigError(*_CONFIG), _answer(403, "AccessDenied")), 2),
        (_from(StorageError("cannot write"), _answer(403, "AccessDenied")), 2),
        (_from(StorageError("cannot write"), _answer(400, "ExpiredToken")), 2),
        (_from(TesseraError("the run broke off"), _from(StorageError("x"), _answer(403, "InvalidAccessKeyId"))), 2),
        (_from(StorageError("cannot write"), OSError(errno.ENOSPC, "No space left on device")), 2),
        (TesseraError("a node was lost"), 4),
        (InUse("in use"), 4),
        (BudgetExceeded("too many", {}), 3),
        (KeyboardInterrupt(), 4),
        (ZeroDivisionError("a defect"), 1),
    ],
)
def test_codes(error: BaseException, code: int) -> None:
    assert outcome.exit_code(error) == code


def test_causes_are_one_line_without_secrets() -> None:
    assert outcome.cause(KeyboardInterrupt()) == "interrupted"
    assert outcome.cause(ZeroDivisionError("a\nb")) == "ZeroDivisionError: a b"
    assert "hunter2" not in outcome.cause(TesseraError("s3://user:hunter2@host/bucket"))


def test_advice_says_what_to_do(tmp_path: Path) -> None:
    full = _from(TesseraError("broke off"), OSError(errno.ENOSPC, "No space left on device"))
    assert f" free at {tmp_path}, " in outcome.advice(full, str(tmp_path))
    assert outcome.advice(full, "s3://bucket/out").startswith(
        "make room on the volume that is full, then run again: it continues ("
    )
    refused = _from(StorageError("cannot write"), _answer(403, "AccessDenied"))
    assert outcome.advice(refused, None).startswith("give the process credentials that the storage accepts")
    for error, words in (
        (InUse("x"), "wait for the other run"),
        (BudgetExceeded("x", {}), "`tessera inspect out` shows the failures"),
        (ZeroDivisionError(), "report it"),
        (ConfigError(*_CONFIG), "correct what the cause names"),
        (ConfigError("source.path", "is empty", "mount it"), "see that the corpus is there and complete"),
        (TesseraError("a node was lost"), "run again: it continues"),
    ):
        assert outcome.advice(error, "out").startswith(words)
