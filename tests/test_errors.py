"""Errors are one printable line, say where, and survive a process border."""

from __future__ import annotations

import pickle

from pipeline.errors import BudgetExceeded, ConfigError, SampleError, describe, one_line


def test_config_error_is_one_line() -> None:
    error = ConfigError("features.a.encoder", "found\n'x'", "allowed: y")
    assert str(error) == "features.a.encoder: found 'x'; allowed: y"


def test_errors_pickle() -> None:
    for error in (ConfigError("a", "b", "c"), SampleError("corrupt", "x"), BudgetExceeded("m", {"rows": 1})):
        back = pickle.loads(pickle.dumps(error))
        assert type(back) is type(error)
        assert str(back) == str(error)
        assert vars(back) == vars(error)


def test_one_line_bounds_and_cleans() -> None:
    assert one_line("a\x00b\n c\x1b[31m") == "a b c [31m"
    assert len(one_line("x" * 9999)) == 500
    assert describe(ValueError("no")) == "ValueError: no"
    assert describe(MemoryError()) == "MemoryError"
