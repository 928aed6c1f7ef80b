"""Errors of the package: a wrong config, a sample that cannot be used, a storage or a device that fails.

They can be pickled, since Ray passes them between processes.
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
    "forbidden",  # the file is outside of the folders that the source allows
    "invalid",  # a row of the manifest that names no sample
    "io",  # reading failed; another attempt may work
    "nan",  # the encoder returned NaN or infinity
    "overflow",  # a value does not fit the storage dtype
    "memory",  # out of memory on the host or the device, or over a row's share of it
    "timeout",  # decoding took longer than a row may take
    "crash",  # the decoder's or the encoder's process died
    "internal",  # anything else: a defect; the message has its type
]
FAILURE_KINDS: tuple[str, ...] = get_args(FailureKind)
TRANSIENT_KINDS = ("io", "memory", "missing")
"""Kinds that the next runs try again. Failures of other kinds are only tried again after the source has changed."""

StageName = Literal["probe", "decode", "tokenize", "encode", "write"]


_MAX_MESSAGE = 1000


class TesseraError(Exception):
    """Base class of every error that Tessera raises on purpose. Its message is one line without secrets."""

    def __str__(self) -> str:
        return one_line(super().__str__(), _MAX_MESSAGE)


class ConfigError(TesseraError):
    """A mistake in a config or in a file that it names; raised before any computation starts.

    Args:
        where: dotted path in the config, e.g. ``features.caption.encoder.checkpoint``.
        found: what was found there.
        allowed: what is allowed there, or what to do.
    """

    def __init__(self, where: str, found: str, allowed: str) -> None:
        super().__init__(where, found, allowed)
        self.where, self.found, self.allowed = where, found, allowed

    def __str__(self) -> str:
        return f"{one_line(self.where, 200)}: {one_line(self.found)}; {one_line(self.allowed)}"


class NotAllowed(ValueError):
    """A mistake that a config section finds in itself. It is converted to a ``ConfigError`` with the section's path.

    Args:
        found: what was found.
        allowed: what is allowed, or what to do.
        where: dotted path relative to the section; empty for the section itself.
    """

    def __init__(self, found: str, allowed: str, where: str = "") -> None:
        super().__init__(f"{found}; {allowed}")
        self.found, self.allowed, self.where = found, allowed, where


class SampleError(TesseraError):
    """One sample, or one feature of one row, cannot be produced.

    Args:
        kind: one of :data:`FAILURE_KINDS`.
        message: the cause, in the words of the decoder or the model; shortened to one line.
    """

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(kind, message)
        self.kind: FailureKind = kind
        self.message = one_line(message)

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


class StorageError(TesseraError, OSError):
    """The storage of the dataset cannot be read or written: full, denied, out of reach. Ends the run; no file is
    published in part.

    Also an ``OSError``, so that code which retries those handles it.
    """


class DeviceFailed(TesseraError):
    """A device cannot be used any more in this process, whatever the input.

    Args:
        message: what happened and what to do.
        words: the message of the device.
    """

    def __init__(self, message: str, words: str) -> None:
        super().__init__(message, words)
        self.words = one_line(words, 200)

    def __str__(self) -> str:
        return one_line(str(self.args[0]), _MAX_MESSAGE)


class BudgetExceeded(TesseraError):
    """More rows failed than ``failures`` of the config allows. The dataset that was written is valid.

    Args:
        message: the number of failures, the limit and the kinds.
        report: the run's report.
    """

    def __init__(self, message: str, report: dict[str, Any]) -> None:
        super().__init__(message, report)
        self.report = report

    def __str__(self) -> str:
        return one_line(str(self.args[0]), _MAX_MESSAGE)


def out_of_memory(error: BaseException) -> bool:
    """Returns whether an allocation failed, on the host or on a device. Recognizes torch's errors without importing
    it."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def device_failed(error: BaseException) -> bool:
    """Returns whether a device cannot be used any more in this process after ``error``: an assertion on the device, an
    illegal address, an uncorrectable memory error."""
    of_cuda = isinstance(error, RuntimeError) and "CUDA error" in str(error)
    return (of_cuda or type(error).__name__ == "AcceleratorError") and not out_of_memory(error)


_OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "bad_alloc",
    "could not create a memory",  # oneDNN
    "out of memory",  # the CUDA driver
    "ALLOC_FAILED",  # cuBLAS, cuDNN
)
"""Parts of messages of a ``RuntimeError``."""


_LAST_WORD = re.compile(r"\s\S*\Z")


def one_line(text: str, limit: int = 500) -> str:
    """Returns ``text`` on one line of at most ``limit`` visible characters, without secrets."""
    text = str(text)
    if len(text) > 20 * limit:
        text = text[: 20 * limit]
        word = _LAST_WORD.search(text)
        if word and len(word[0]) <= 10 * limit:  # a secret that is cut would not be recognized
            text = text[: word.start()]
    return escaping.one_line(without_secrets(text), limit)


_PYAV_LOG = "; last error log: "


def describe(error: BaseException) -> str:
    """Returns ``Type: message`` of any exception on one line, for failure records.

    Leaves out the line of FFmpeg's log that PyAV appends, since it may be about another file.
    """
    text = one_line(str(error).partition(_PYAV_LOG)[0])
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
