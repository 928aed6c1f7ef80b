"""Errors of an engine, as a user is to read them."""

from __future__ import annotations

from pipeline.core.errors import ConfigError, TesseraError, describe, one_line

_ADVICE_OF_RAY = " Failed to apply UDF transform after "
"""Ray adds it to the message of any error, of ours too."""


def as_user_error(error: Exception, run_id: str, cause: TesseraError | None = None) -> TesseraError:
    """Returns the error that ends a run.

    Args:
        error: what the engine raised; Ray wraps the true cause.
        cause: what a worker reported, if it could. A ``ConfigError`` is returned as it is.
    """
    for one in (cause, error):
        if isinstance(one, ConfigError):
            return one
    causes: list[BaseException] = [error]
    while isinstance(inner := getattr(causes[-1], "cause", None) or causes[-1].__cause__, BaseException):
        causes.append(inner)
    own = [one for one in causes if not type(one).__module__.startswith("ray.")] or causes
    text = one_line(str(own[-1])) if isinstance(own[-1], TesseraError) else describe(own[-1])
    return TesseraError(f"the run {run_id} broke off: {cause or text.partition(_ADVICE_OF_RAY)[0]}")
