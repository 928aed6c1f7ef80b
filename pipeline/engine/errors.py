"""Converts errors of an engine to the error that a user reads."""

from __future__ import annotations

from pipeline.core.errors import ConfigError, TesseraError, describe, one_line

_SUFFIX_OF_RAY = " Failed to apply UDF transform after "
"""Begins what Ray appends to the message of every error."""


def as_user_error(error: Exception, run_id: str, cause: TesseraError | None = None) -> TesseraError:
    """Returns the error that ends a run.

    Args:
        error: what the engine raised. Ray wraps the original error.
        run_id: id of the run, for the message.
        cause: the first error that a worker reported, if any.

    Returns:
        ``cause`` or ``error`` itself if it is a ``ConfigError``; else a ``TesseraError`` with the original cause.
    """
    for one in (cause, error):
        if isinstance(one, ConfigError):
            return one
    causes: list[BaseException] = [error]
    while isinstance(inner := getattr(causes[-1], "cause", None) or causes[-1].__cause__, BaseException):
        causes.append(inner)
    own = [one for one in causes if not type(one).__module__.startswith("ray.")] or causes
    text = one_line(str(own[-1])) if isinstance(own[-1], TesseraError) else describe(own[-1])
    return TesseraError(f"the run {run_id} broke off: {cause or text.partition(_SUFFIX_OF_RAY)[0]}")
