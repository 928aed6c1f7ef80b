"""Exit codes separate what to try again from what will never work."""

from __future__ import annotations

import errno

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
        (_from(ConfigError(*_CONFIG), _answer(503, "SlowDown")), 4),
        (_from(ConfigError(*_CONFIG), _answer(403, "AccessDenied")), 2),
        (_from(StorageError("cannot write"), _answer(403, "AccessDenied")), 2),
        (_from(StorageError("cannot write"), _answer(400, "ExpiredToken")), 2),
        (_from(TesseraError("the run broke off"), _from(StorageError("x"), _answer(403, "InvalidAccessKeyId"))), 2),
        (_from(StorageError("cannot write"), OSError(errno.ENOSPC, "No space left on device")), 4),
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
