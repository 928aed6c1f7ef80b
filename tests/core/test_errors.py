"""Errors are one printable line, name the place, and can be pickled."""

from __future__ import annotations

import pickle

import pytest

from pipeline.core.errors import (
    BudgetExceeded,
    ConfigError,
    DeviceFailed,
    SampleError,
    StorageError,
    TesseraError,
    describe,
    one_line,
)


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
    assert one_line("a\x00b\n c\x1b[31m") == r"a\x00b c\x1b[31m"
    assert len(one_line("x" * 9999)) == 500
    assert describe(ValueError("no")) == "ValueError: no"
    assert describe(MemoryError()) == "MemoryError"


URL = "https://user:hunter2@host/x"


@pytest.mark.parametrize(
    "error",
    [
        ConfigError(f"--set {URL}", f"found '{URL}'", f"not {URL}"),
        SampleError("io", f"cannot reach {URL}"),
        TesseraError(f"no {URL}"),
        StorageError(5, f"no {URL}", "x"),
        DeviceFailed(f"no {URL}", f"no {URL}"),
        BudgetExceeded(f"no {URL}", {}),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_error_shows_a_secret_or_a_control_character(error: TesseraError) -> None:
    for shown in (str(error), describe(error), getattr(error, "words", ""), getattr(error, "message", "")):
        assert "hunter2" not in shown
    bare = type(error)(*(one.replace(URL, "\x1b[2J\u202e\n") if isinstance(one, str) else one for one in error.args))
    assert str(bare).isprintable()
    assert r"\x1b[2J\u202e" in str(bare)


def test_what_other_libraries_say_is_cleaned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    error = OSError(f"403 for {URL}?X-Amz-Signature=hunter2 with wJalrXUtnFEMI; Authorization: Bearer hunter2")
    assert describe(error) == (
        "OSError: 403 for https://***@host/x?X-Amz-Signature=*** with ***; Authorization: Bearer ***"
    )


def test_an_error_is_bounded() -> None:
    assert len(str(ConfigError("a" * 9999, "b" * 9999, "c" * 9999))) < 1300
    assert len(str(TesseraError("a" * 9999))) == 1000


@pytest.mark.parametrize("before", range(9940, 10_000, 3))
def test_a_secret_is_not_cut_before_it_is_hidden(before: int) -> None:
    line = one_line(" " * before + "https://user:passwordpasswordpassword@host/path?a=1 " + "x" * 9000)
    assert "passw" not in line


def test_the_log_of_another_file_is_no_part_of_an_error() -> None:
    import av

    error = av.error.InvalidDataError(1094995529, "Invalid data", "a.mp4", (16, "mov", "moov atom not found"))
    assert "last error log" in str(error)
    assert describe(error).endswith("Invalid data: 'a.mp4'")
