"""Errors that a person reads: what is wrong with a config, and why a sample could not be used.

Both kinds pickle, because they cross process borders inside Ray.
"""

from __future__ import annotations

import re
from typing import Any, Literal, get_args

from pipeline.core import escaping
from pipeline.core.redaction import without_secrets

FailureKind = Literal[
    "corrupt",  # the bytes are not what their format promises
    "unsupported",  # a format or codec that no decoder here reads
    "empty",  # nothing in it: zero bytes, zero frames, no words
    "encoding",  # text that the declared encoding policy refuses
    "limit",  # over a declared limit (pixels, bytes, seconds)
    "missing",  # the file is not there
    "forbidden",  # the file lies outside of what the source allows
    "invalid",  # a row of the manifest that names no sample
    "io",  # reading failed; another attempt may work
    "nan",  # the encoder returned NaN or infinity
    "overflow",  # a value does not fit the storage dtype
    "memory",  # out of memory on the host or the device, or over a row's share of it
    "timeout",  # decoding took longer than a row may take
    "crash",  # the decoder's or the encoder's process died
    "internal",  # anything else: a defect, told with its type
]
FAILURE_KINDS: tuple[str, ...] = get_args(FailureKind)
TRANSIENT_KINDS = ("io", "memory", "missing")
"""What another night may mend; tried again by the next runs. The others wait for a change of the source."""

StageName = Literal["probe", "decode", "tokenize", "encode", "write"]


_LONGEST = 1000


class TesseraError(Exception):
    """Base of every error that Tessera raises on purpose. Told on one line, which holds no secret."""

    def __str__(self) -> str:
        return one_line(super().__str__(), _LONGEST)


class ProcessDied(TesseraError):
    """A process that computes for another died."""


class ConfigError(TesseraError):
    """A mistake in a config or in what it names; found before any compute starts.

    Args:
        where: dotted path in the config, e.g. ``features.caption.encoder.checkpoint``.
        found: what stands there.
        allowed: what may stand there, or what to do.
    """

    def __init__(self, where: str, found: str, allowed: str) -> None:
        super().__init__(where, found, allowed)
        self.where, self.found, self.allowed = where, found, allowed

    def __str__(self) -> str:
        return f"{one_line(self.where, 200)}: {one_line(self.found)}; {one_line(self.allowed)}"


class NotAllowed(ValueError):
    """What a config section's own check found; it becomes a ``ConfigError`` that knows the section's place.

    Args:
        found: what stands there.
        allowed: what may stand there, or what to do.
        where: dotted path below the section, empty for the section itself.
    """

    def __init__(self, found: str, allowed: str, where: str = "") -> None:
        super().__init__(f"{found}; {allowed}")
        self.found, self.allowed, self.where = found, allowed, where


class SampleError(TesseraError):
    """One sample, or one feature of one row, cannot be produced.

    Args:
        kind: one of :data:`FAILURE_KINDS`.
        message: the cause in the decoder's or the model's own words, one line.
    """

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(kind, message)
        self.kind: FailureKind = kind
        self.message = one_line(message)

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


class StorageError(TesseraError, OSError):
    """The dataset's own place cannot be read or written: full, denied, out of reach. Ends the run; nothing is
    half-published. An ``OSError`` too, for those who wait for a better moment."""


class DeviceFailed(TesseraError):
    """A device does nothing more in this process, whatever row it is given.

    Args:
        message: with what to do.
        words: the device's own.
    """

    def __init__(self, message: str, words: str) -> None:
        super().__init__(message, words)
        self.words = one_line(words, 200)

    def __str__(self) -> str:
        return one_line(str(self.args[0]), _LONGEST)


class BudgetExceeded(TesseraError):
    """More rows failed than the config's ``failures`` allow. What was written stays valid.

    Args:
        message: the count, the budget and the kinds.
        report: the run's report.
    """

    def __init__(self, message: str, report: dict[str, Any]) -> None:
        super().__init__(message, report)
        self.report = report

    def __str__(self) -> str:
        return one_line(str(self.args[0]), _LONGEST)


def out_of_memory(error: BaseException) -> bool:
    """True for an allocation that failed, of the host or of a device. Also torch's own errors, without importing it."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def device_failed(error: BaseException) -> bool:
    """True for an error after which a device does nothing more in this process, whatever row it is given: an assertion
    on the device, an illegal address, a memory error that its hardware could not correct."""
    of_cuda = isinstance(error, RuntimeError) and "CUDA error" in str(error)
    return (of_cuda or type(error).__name__ == "AcceleratorError") and not out_of_memory(error)


_OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "bad_alloc",
    "could not create a memory",  # oneDNN
    "out of memory",  # CUDA, where it is the driver that refuses
    "ALLOC_FAILED",  # cuBLAS, cuDNN
)


_LAST_WORD = re.compile(r"\s\S*\Z")


def one_line(text: str, limit: int = 500) -> str:
    """``text`` on one line without secrets, of visible characters, at most ``limit`` of them."""
    text = str(text)
    if len(text) > 20 * limit:
        text = text[: 20 * limit]
        word = _LAST_WORD.search(text)
        if word and len(word[0]) <= 10 * limit:  # perhaps a secret, which is not known as one once it is cut
            text = text[: word.start()]
    return escaping.one_line(without_secrets(text), limit)


_LOG_OF_PYAV = "; last error log: "


def describe(error: BaseException) -> str:
    """Returns ``Type: message`` of any exception on one line, for failure records.

    What PyAV adds of FFmpeg's log is left out: it may be of another file.
    """
    text = one_line(str(error).partition(_LOG_OF_PYAV)[0])
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
