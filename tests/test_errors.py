"""Errors are one printable line, say where, and survive a process border."""

from __future__ import annotations

import pickle

import pytest

from pipeline.errors import BudgetExceeded, ConfigError, SampleError, carries_secret, describe, one_line


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


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://key:secret@bucket/x", True),
        ("https://:token@host/x", True),
        ("https://host/x?a=1&X-Amz-Signature=abc", True),
        ("https://acct.blob.core.windows.net/c/x?sv=1&sig=abc", True),
        ("s3://bucket/a:b@c.jpg", False),
        ("abfs://container@account.dfs.core.windows.net/x", False),
        ("http://host:9000/x", False),
        ("/local/a:b@c?sig=1", False),
        ("query: ", False),
    ],
)
def test_urls_that_carry_secrets(url: str, expected: bool) -> None:
    assert carries_secret(url) is expected
