"""Which failures are tried again."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core.errors import TRANSIENT_KINDS
from pipeline.dataset.diff.columns import RETRY_SAMPLE, RETRY_WINDOW, STATE

FAILURE_COLUMNS = ["stage", "kind", "attempts", "feature"]
"""The columns of failures that `with_retry` reads."""
_MAX_ATTEMPTS = 1_000_000_000


@dataclass(frozen=True)
class RetryPolicy:
    """Which failures are tried again."""

    all: bool = False
    """All of them, of every kind and after any number of attempts."""
    max_attempts: int = 3
    """Transient failures are tried up to this often."""
    forbidden: bool = False
    """Failures of files that the source did not allow, because its allowed roots have changed."""


def with_retry(state: pa.Table, failures: pa.Table, policy: RetryPolicy) -> pa.Table:
    """Returns ``state`` with the columns ``retry``, ``attempts`` and ``feature`` filled in.

    Args:
        state: [n] of ``STATE``, the rows of ``failures``.
        failures: [n] with `FAILURE_COLUMNS`.
        policy: which of them are tried again.

    Raises:
        pyarrow.ArrowInvalid: a number of attempts that no run writes.
    """
    attempts = failures["attempts"].cast(pa.int32())
    is_valid = pc.and_(pc.greater_equal(attempts, 0), pc.less(attempts, _MAX_ATTEMPTS))
    if not pc.all(is_valid.fill_null(False)).as_py():
        raise pa.ArrowInvalid("a number of attempts that no run writes")
    is_retried = pa.array([True] * len(state))
    if not policy.all:
        is_transient = pc.is_in(failures["kind"], value_set=pa.array(TRANSIENT_KINDS))
        # a Ray worker may also be killed because other processes use too much memory
        was_killed = pc.and_(pc.equal(failures["kind"], "crash"), pc.equal(failures["stage"], "encode"))
        is_transient = pc.or_(is_transient, was_killed)
        is_retried = pc.and_(is_transient, pc.less(failures["attempts"], policy.max_attempts))
        if policy.forbidden:
            is_retried = pc.or_(is_retried, pc.equal(failures["kind"], "forbidden"))
    is_of_sample = pc.or_(pc.equal(failures["stage"], "probe"), pc.is_null(failures["feature"]))
    retry = pc.if_else(is_retried, pc.if_else(is_of_sample, RETRY_SAMPLE, RETRY_WINDOW), 0).cast(pa.int8())
    state = state.set_column(STATE.get_field_index("retry"), STATE.field("retry"), retry)
    for name in ("attempts", "feature"):
        field = STATE.field(name)
        state = state.set_column(STATE.get_field_index(name), field, failures[name].cast(field.type))
    return state
