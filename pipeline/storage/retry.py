"""Trying again: which errors of a file system may pass by themselves, and how long to wait for that.

Waits grow exponentially, with full jitter, so that a thousand workers that were throttled together do not come back
together (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).

Storage libraries try again too, below this: botocore 5 requests for a 5xx, a 429, a timeout or a reset
(``AWS_MAX_ATTEMPTS`` and ``AWS_RETRY_MODE`` are the user's), s3fs 5 of those for a timeout, a body that breaks off and
``SlowDown``. What reaches this module has outlived them. ``TOTAL_S`` counts their time too, so that the two do not
multiply: a server that lets every request hang keeps them busy for minutes, and is not asked by us again.
"""

from __future__ import annotations

import errno
import itertools
import random
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

ATTEMPTS = 6
BASE_S = 0.5
"""The first wait is at most this long; the bound doubles with each."""
MAX_S = 10.0
TOTAL_S = 60.0
"""No further attempt begins later than this after the first began."""

_ERRNOS = frozenset(
    (
        errno.EAGAIN,
        errno.EBUSY,  # s3fs's for 503 and SlowDown
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
        errno.EREMOTEIO,  # s3fs's for 500
        errno.ESTALE,
        errno.ETIMEDOUT,
    )
)
_STATUSES = frozenset((408, 425, 429))
_NEVER = frozenset((501, 505))
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
"""What S3 answers with a status of 400 or 409 and yet passes."""
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
"""By name: none of these libraries need be there. Subclasses are meant too."""
_LIBRARIES = frozenset(
    ("adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google", "http", "requests", "s3fs", "urllib3")
)

T = TypeVar("T")


def _nobody() -> None:
    """Nobody is to be told."""


on_wait: Callable[[], None] = _nobody
"""Called before each wait: who watches this process's time may want to know that it is the storage's."""


class Truncated(OSError):
    """Fewer bytes came than the file has."""

    def __init__(self, got: int, size: int) -> None:
        super().__init__(errno.EIO, f"truncated read: {got} of {size} bytes")
        self.got, self.size = got, size

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.got, self.size)


def retried(call: Callable[[], T]) -> T:
    """What ``call`` returns, called again while it raises what may pass. Raises its last error."""
    started = time.monotonic()
    for attempt in itertools.count():
        wait_s = random.uniform(0, min(MAX_S, BASE_S * 2**attempt))
        try:
            return call()
        except Exception as error:
            over = attempt + 1 >= ATTEMPTS or time.monotonic() - started + wait_s > TOTAL_S
            if over or not is_transient(error):
                raise
        on_wait()
        time.sleep(wait_s)
    raise AssertionError


def is_transient(error: BaseException) -> bool:
    """True if the same call may succeed a little later: throttled, timed out, cut off, a server's own failure.

    False for what no waiting mends: no such file, access denied, a bad request, a certificate that is not trusted.
    """
    chain = list(_chain(error))
    if any(isinstance(one, ssl.SSLCertVerificationError) for one in chain):
        return False
    for one in chain:  # an answer of the server says more than the number of the error that a library made of it
        if {f"{cls.__module__}.{cls.__qualname__}" for cls in type(one).__mro__} & _TYPES:
            return True
        status, code = _answer(one)
        if status is not None:
            return code in _CODES or status in _STATUSES or (status >= 500 and status not in _NEVER)
    return any(
        isinstance(one, TimeoutError | ConnectionError) or (isinstance(one, OSError) and one.errno in _ERRNOS)
        for one in chain
    )


def of_storage(error: BaseException) -> bool:
    """True for what a file system raises when it cannot do its work: an ``OSError``, or its library's own kind."""
    return isinstance(error, OSError) or bool(
        {cls.__module__.partition(".")[0] for cls in type(error).__mro__} & _LIBRARIES
    )


def denied(error: BaseException) -> bool:
    return any(isinstance(one, PermissionError) or _answer(one)[0] in (401, 403) for one in _chain(error))


def full(error: BaseException) -> bool:
    """True if a disk or a quota is full."""
    return any(isinstance(one, OSError) and one.errno in (errno.ENOSPC, errno.EDQUOT) for one in _chain(error))


def precondition_failed(error: BaseException) -> bool:
    """True where a conditional request met another state: not every S3 server says which condition it was, and s3fs
    makes a ``FileExistsError`` only of those that do."""
    return any(_answer(one)[0] == 412 for one in _chain(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _answer(error: BaseException) -> tuple[int | None, str]:
    """HTTP status and the server's own code, of botocore's, aiohttp's, Google's and Azure's errors; (None, "")."""
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
