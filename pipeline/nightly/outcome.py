"""Exit codes of a night: what to try again, and what will never work before somebody changes something."""

from __future__ import annotations

from pipeline.core.errors import BudgetExceeded, ConfigError, TesseraError, describe, one_line
from pipeline.storage.retry import denied, expired, is_transient, without_credentials

DONE, DEFECT, NEVER, FAILURES, AGAIN = 0, 1, 2, 3, 4
"""Done; a defect of Tessera; it will never work before somebody changes something; more failed rows than allowed, what
was written is committed; another attempt may work."""


def exit_code(error: BaseException) -> int:
    """Returns the exit code of a night that ``error`` ended.

    A storage that does not answer is worth another attempt, also where it is noticed before anything is computed; one
    that refuses the credentials is not, also where it is noticed late.
    """
    if isinstance(error, BudgetExceeded):
        return FAILURES
    if not isinstance(error, TesseraError):
        return DEFECT if isinstance(error, Exception) else AGAIN
    if denied(error) or expired(error) or without_credentials(error):
        return NEVER
    if isinstance(error, ConfigError):
        return AGAIN if error.__cause__ is not None and is_transient(error.__cause__) else NEVER
    return AGAIN


def cause(error: BaseException) -> str:
    """Returns the cause on one line."""
    if isinstance(error, TesseraError):
        return one_line(str(error))
    return describe(error) if isinstance(error, Exception) else "interrupted"
