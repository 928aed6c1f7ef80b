"""The error that ends a run has the true cause in it, whatever the engine wrapped it into."""

from __future__ import annotations

from pipeline.core.errors import ConfigError, TesseraError
from pipeline.engine.errors import as_user_error


class Wrapped(Exception):
    """As Ray wraps an error: the cause is an attribute."""

    def __init__(self, text: str, cause: Exception) -> None:
        super().__init__(text)
        self.cause = cause


Wrapped.__module__ = "ray.exceptions"


def test_a_mistake_of_the_config_is_returned_as_it_is() -> None:
    mistake = ConfigError("features.x", "nothing", "something")
    assert as_user_error(RuntimeError("other"), "r", mistake) is mistake
    assert as_user_error(mistake, "r") is mistake


def test_the_cause_that_a_worker_reported_comes_first() -> None:
    reported = as_user_error(Wrapped("in its own words", ValueError("v")), "r1", TesseraError("the disk is full"))
    assert str(reported) == "the run r1 broke off: the disk is full"


def test_the_innermost_error_that_is_not_of_ray() -> None:
    inner = ValueError("bad value Failed to apply UDF transform after 1 attempt")
    assert str(as_user_error(Wrapped("outer", inner), "r1")) == "the run r1 broke off: ValueError: bad value"
    middle = RuntimeError("middle")
    middle.__cause__ = TesseraError("two\nlines")
    assert str(as_user_error(Wrapped("outer", middle), "r1")) == "the run r1 broke off: two lines"
    assert str(as_user_error(Wrapped("only ray", Wrapped("inner", None)), "r")) == "the run r broke off: Wrapped: inner"  # type: ignore[arg-type]
