"""Retries calls to a file system after transient errors, with exponential backoff and full jitter.

The jitter spreads the retries of many workers that were throttled together
(https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).

Storage libraries also retry by themselves: botocore makes 5 requests for a 5xx, a 429, a timeout or a reset (the user
sets ``AWS_MAX_ATTEMPTS`` and ``AWS_RETRY_MODE``), and s3fs repeats that 5 times for a timeout, an incomplete body and
``SlowDown``. Errors reach this module after all of these retries. ``storage.max_wait_s`` includes their time, so that
the retries do not multiply: after a server has let every request time out for minutes, it is not called again.
"""

from __future__ import annotations

import errno
import itertools
import random
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from pipeline.storage import settings

BASE_S = 0.5
"""Maximum length of the first wait. The maximum doubles with each wait."""
MAX_S = 10.0
"""Maximum length of any wait."""
_MAX_DOUBLINGS = 30

_ERRNOS = frozenset(
    (
        errno.EAGAIN,
        errno.EBUSY,  # s3fs raises it for 503 and SlowDown
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.EINTR,
        errno.EIO,
        errno.ENETDOWN,
        errno.ENETRESET,
        errno.ENETUNREACH,
        errno.EPIPE,
        errno.EREMOTEIO,  # s3fs raises it for 500
        errno.ESTALE,
        errno.ETIMEDOUT,
    )
)
_STATUSES = frozenset((408, 425, 429))
"""Transient statuses of HTTP below 500."""
_PERMANENT = frozenset((501, 505))
"""Statuses of 500 and more that are not transient."""
_CODES = frozenset(
    (
        "BadDigest",
        "BandwidthLimitExceeded",
        "ConditionalRequestConflict",
        "IncompleteBody",
        "OperationAborted",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestTimeout",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "XAmzContentSHA256Mismatch",
    )
)
"""Transient error codes that S3 sends with a status of 400 or 409."""
_TYPES = frozenset(
    (
        "aiohttp.client_exceptions.ClientConnectionError",
        "aiohttp.client_exceptions.ClientPayloadError",
        "botocore.exceptions.ConnectionError",
        "botocore.exceptions.FlexibleChecksumError",
        "botocore.exceptions.HTTPClientError",
        "botocore.exceptions.IncompleteReadError",
        "botocore.parsers.ResponseParserError",  # throttled answers may be no XML (fsspec/s3fs#484)
        "http.client.IncompleteRead",
        "requests.exceptions.ChunkedEncodingError",
        "requests.exceptions.ConnectionError",
        "requests.exceptions.Timeout",
        "urllib3.exceptions.HTTPError",
    )
)
"""Transient error classes and their subclasses, by name: the libraries may not be installed."""
_LIBRARIES = frozenset(
    ("adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google", "http", "requests", "s3fs", "urllib3")
)
"""Packages whose errors come from a storage."""

T = TypeVar("T")


def ignore_wait() -> None:
    """The default of ``on_wait``: does nothing."""


class Truncated(OSError):
    """A read that returned fewer bytes than the file has.

    Args:
        got: bytes that were read.
        size: bytes that were expected.
    """

    def __init__(self, got: int, size: int) -> None:
        super().__init__(errno.EIO, f"truncated read: {got} of {size} bytes")
        self.got, self.size = got, size

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.got, self.size)


def retried(call: Callable[[], T], on_wait: Callable[[], None] = ignore_wait) -> T:
    """Returns the result of ``call``, which is repeated after transient errors. Raises the last error.

    No attempt starts later than ``storage.max_wait_s`` after the first.

    Args:
        call: what is tried.
        on_wait: called before each wait, so that a process under a time limit can record that it waits for its storage.
    """
    started = time.monotonic()
    for attempt in itertools.count():
        wait_s = random.uniform(0, min(MAX_S, BASE_S * 2 ** min(attempt, _MAX_DOUBLINGS)))
        try:
            return call()
        except Exception as error:
            over = time.monotonic() - started + wait_s > settings.current().max_wait_s
            if over or not is_transient(error):
                raise
        on_wait()
        time.sleep(wait_s)
    raise AssertionError


def is_transient(error: BaseException) -> bool:
    """Returns whether the same call may succeed later: throttling, timeout, lost connection, failure of the server.

    False for permanent errors: no such file, access denied, a bad request, a certificate that is not trusted.
    """
    chain = list(_chain(error))
    if any(isinstance(one, ssl.SSLCertVerificationError) for one in chain):
        return False
    for one in chain:  # the server's answer is more precise than the errno that a library derives from it
        if {f"{cls.__module__}.{cls.__qualname__}" for cls in type(one).__mro__} & _TYPES:
            return True
        status, code = _answer(one)
        if status is not None:
            return code in _CODES or status in _STATUSES or (status >= 500 and status not in _PERMANENT)
    return any(
        isinstance(one, TimeoutError | ConnectionError) or (isinstance(one, OSError) and one.errno in _ERRNOS)
        for one in chain
    )


def of_storage(error: BaseException) -> bool:
    """Returns whether ``error`` comes from a file system: an ``OSError``, or an error class of a storage library."""
    return isinstance(error, OSError) or bool(
        {cls.__module__.partition(".")[0] for cls in type(error).__mro__} & _LIBRARIES
    )


def denied(error: BaseException) -> bool:
    """Returns whether access was denied."""
    return any(isinstance(one, PermissionError) or _answer(one)[0] in (401, 403) for one in _chain(error))


def without_credentials(error: BaseException) -> bool:
    """Returns whether a library found no credentials, or only a part of them."""
    names = {type(one).__name__ for one in _chain(error)}
    return bool(names & {"NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError"})


def expired(error: BaseException) -> bool:
    """Returns whether S3 says that credentials were valid, and are not any more."""
    return any(_answer(one)[1] in ("ExpiredToken", "TokenRefreshRequired", "RequestExpired") for one in _chain(error))


def of_another_region(error: BaseException) -> bool:
    """Returns whether S3 says that the bucket is in another region than the request was signed for."""
    codes = ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException")
    return any(_answer(one)[1] in codes for one in _chain(error))


def full(error: BaseException) -> bool:
    """Returns whether a disk or a quota is full."""
    return any(isinstance(one, OSError) and one.errno in (errno.ENOSPC, errno.EDQUOT) for one in _chain(error))


def precondition_failed(error: BaseException) -> bool:
    """Returns whether the condition of a conditional request was not met.

    s3fs raises ``FileExistsError`` only if the S3 server says which condition it was; not every server does.
    """
    return any(_answer(one)[0] == 412 for one in _chain(error))


def range_not_satisfiable(error: BaseException) -> bool:
    """Returns whether a request asked for a range in which the file has no byte."""
    return any(_answer(one)[0] == 416 for one in _chain(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yields ``error`` and its causes."""
    while error is not None:
        yield error
        error = error.__cause__


def _answer(error: BaseException) -> tuple[int | None, str]:
    """Returns the HTTP status and the server's error code of an error of botocore, aiohttp, Google or Azure; otherwise
    (None, "")."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return status, str(response.get("Error", {}).get("Code", ""))
    for place in (error, response):
        for name in ("status", "status_code", "code"):
            value = getattr(place, name, None)
            if isinstance(value, int) and 400 <= value < 600:
                return value, ""
    return None, ""
