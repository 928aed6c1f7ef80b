"""Which errors are retried, how often and after which waits."""

from __future__ import annotations

import errno
import pickle
import ssl
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from aiohttp.http_exceptions import ContentLengthError
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from botocore.parsers import ResponseParserError
from fsspec.exceptions import FSTimeoutError
from s3fs.errors import translate_boto_error
from s3fs.utils import FileExpired

from pipeline.core.errors import SampleError
from pipeline.storage import retry
from pipeline.storage.retry import Truncated, denied, full, is_transient, of_storage, precondition_failed, retried
from pipeline.storage.settings import StorageConfig


def answered(status: int, code: str) -> Exception:
    """The error that s3fs raises for an answer of S3."""
    error: Exception = translate_boto_error(
        ClientError(
            {"Error": {"Code": code, "Message": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject"
        )
    )
    return error


def from_cause(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


REQUEST: Any = None
PASSING: list[Exception] = [
    answered(500, "InternalError"),
    answered(502, "502"),
    answered(503, "SlowDown"),
    answered(503, "503"),
    answered(504, "GatewayTimeout"),
    answered(429, "TooManyRequests"),
    answered(400, "RequestTimeout"),
    answered(400, "ThrottlingException"),
    answered(409, "ConditionalRequestConflict"),
    ReadTimeoutError(endpoint_url="x"),
    ConnectTimeoutError(endpoint_url="x"),
    EndpointConnectionError(endpoint_url="x"),
    ConnectionClosedError(endpoint_url="x"),
    ResponseStreamingError(error="x"),
    ResponseParserError("not XML"),
    aiohttp.ClientPayloadError("not completed"),
    from_cause(aiohttp.ClientPayloadError("not completed"), ContentLengthError("126 of 300 bytes")),
    aiohttp.ServerDisconnectedError(),
    aiohttp.ClientOSError(errno.ECONNRESET, "reset"),
    aiohttp.ClientResponseError(REQUEST, (), status=503),
    FSTimeoutError(),
    TimeoutError(),
    TimeoutError(),
    ConnectionResetError(errno.ECONNRESET, "reset"),
    BrokenPipeError(),
    OSError(errno.EIO, "I/O error"),
    from_cause(OSError("wrapped"), ConnectionResetError()),
    Truncated(1, 2),
]
STAYING: list[Exception] = [
    answered(403, "AccessDenied"),
    answered(403, "InvalidAccessKeyId"),
    answered(404, "NoSuchKey"),
    answered(404, "NoSuchBucket"),
    answered(400, "InvalidArgument"),
    answered(412, "PreconditionFailed"),
    answered(416, "InvalidRange"),
    answered(501, "NotImplemented"),
    from_cause(FileExpired("x", "etag"), answered(412, "PreconditionFailed")),
    NoCredentialsError(),
    aiohttp.ClientResponseError(REQUEST, (), status=404),
    aiohttp.InvalidURL("x"),
    FileNotFoundError(errno.ENOENT, "gone"),
    PermissionError(errno.EACCES, "denied"),
    FileExistsError(),
    IsADirectoryError(),
    OSError(errno.ENOSPC, "full"),
    OSError("of no number"),
    from_cause(OSError("x"), ssl.SSLCertVerificationError("self-signed")),
    ValueError("a defect"),
    SampleError("io", "reported already"),
]


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_may_pass(error: Exception) -> None:
    assert is_transient(error)
    assert of_storage(error)


@pytest.mark.parametrize("error", STAYING, ids=repr)
def test_what_stays(error: Exception) -> None:
    assert not is_transient(error)


def test_a_defect_is_no_failure_of_storage() -> None:
    assert not of_storage(ValueError())
    assert not of_storage(KeyError("x"))
    assert of_storage(NoCredentialsError())
    assert of_storage(aiohttp.ClientPayloadError())


def test_denied_full_and_precondition() -> None:
    assert denied(answered(403, "AccessDenied"))
    assert denied(PermissionError())
    assert not denied(answered(500, "InternalError"))
    assert full(OSError(errno.ENOSPC, "x"))
    assert full(OSError(errno.EDQUOT, "x"))
    assert not full(OSError(errno.EIO, "x"))
    assert precondition_failed(answered(412, "PreconditionFailed"))
    assert not precondition_failed(answered(404, "NoSuchKey"))


def test_a_truncated_read_crosses_processes() -> None:
    error = pickle.loads(pickle.dumps(Truncated(3, 7)))
    assert (error.got, error.size, error.errno) == (3, 7, errno.EIO)
    assert "3 of 7 bytes" in str(error)


class Clock:
    """A clock that only advances by waits, and by the duration of each call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, call_s: float = 0.0) -> None:
        self.now, self.call_s, self.waits = 0.0, call_s, list[float]()
        monkeypatch.setattr(retry.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(retry.time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def failing(self, times: int, error: Exception) -> Callable[[], int]:
        calls = 0

        def call() -> int:
            nonlocal calls
            calls += 1
            self.now += self.call_s
            if calls <= times:
                raise error
            return calls

        return call


def test_it_works_after_some_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    assert retried(clock.failing(0, TimeoutError())) == 1
    assert clock.waits == []
    assert retried(clock.failing(3, TimeoutError())) == 4
    assert len(clock.waits) == 3


def test_time_is_bounded_and_waits_grow_with_full_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds: list[tuple[float, float]] = []
    monkeypatch.setattr(retry.random, "uniform", lambda low, high: bounds.append((low, high)) or high)
    clock = Clock(monkeypatch)
    with pytest.raises(TimeoutError):
        retried(clock.failing(99, TimeoutError()))
    assert clock.waits == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0, 10.0]
    assert all(low == 0 for low, _ in bounds)
    for longest, waits in ((0.0, []), (4.0, [0.5, 1.0, 2.0]), (80.0, [0.5, 1.0, 2.0, 4.0, 8.0, *[10.0] * 6])):
        monkeypatch.setenv("TESSERA_STORAGE", StorageConfig(max_wait_s=longest).model_dump_json())
        clock = Clock(monkeypatch)
        with pytest.raises(TimeoutError):
            retried(clock.failing(99, TimeoutError()))
        assert clock.waits == waits


def test_the_time_of_slow_attempts_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that retried for minutes by itself is not called again."""
    for call_s, attempts in ((70.0, 1), (25.0, 3)):
        clock = Clock(monkeypatch, call_s)
        calls: list[float] = []
        failing = clock.failing(99, TimeoutError())

        def counted(failing: Callable[[], int] = failing, calls: list[float] = calls) -> int:
            calls.append(0)
            return failing()

        with pytest.raises(TimeoutError):
            retried(counted)
        assert len(calls) == attempts
        assert clock.now <= 60 + call_s


def test_what_no_waiting_mends_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    for error in (FileNotFoundError("x"), answered(403, "AccessDenied"), KeyError("x")):
        with pytest.raises(type(error)):
            retried(clock.failing(1, error))
    assert clock.waits == []
