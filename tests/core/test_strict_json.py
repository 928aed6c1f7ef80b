"""Untrusted JSON is read with its types, or refused in one line that names the file and the place."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from pipeline.core import strict_json
from pipeline.core.errors import ConfigError
from pipeline.core.strict_json import Value


def refused(call: Any, *words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        call()
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert text.isprintable()
    assert len(text) < 500


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b'{"a": "\xff"}', "is not JSON ('utf-8' codec"),
        (b"[" * 100_000, "is nested too deep"),
        (b'{"a":' * 100_000, "is nested too deep"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": -Infinity}', "-Infinity is no number"),
        (b'{"a": 1, "a": 2}', "'a' is there twice"),
        (b'{"a": ' + b"9" * 6000 + b"}", "is not JSON"),
    ],
)
def test_what_is_no_json(data: bytes, why: str) -> None:
    refused(lambda: strict_json.parse(data, "/d/f\x1b.json"), r"'/d/f\x1b.json'", why)


def value(what: Any) -> Value:
    return next(strict_json.parse(json.dumps({"x": [what]}), "f.json").member("x").items())


@pytest.mark.parametrize("bad", [True, 1.0, -1, 11, "1", None, [], {}, 2**64])
def test_integers(bad: Any) -> None:
    assert [value(one).integer(0, 10) for one in (0, 10)] == [0, 10]
    refused(lambda: value(bad).integer(0, 10), "'f.json': x[0] is ", "a whole number from 0 to 10")


@pytest.mark.parametrize("bad", [True, "1", None, [1], 1e300])
def test_numbers(bad: Any) -> None:
    assert value(1).number() == 1.0
    assert value(-1.5).number() == -1.5
    refused(lambda: value(bad).number(), "a number")
    refused(lambda: next(strict_json.parse("[1e400]", "f").items()).number(), "[0] is inf", "a number")


@pytest.mark.parametrize("bad", [1, None, ["a"], "a" * 5000, "\ud800", "b", "a\n"])
def test_strings(bad: Any) -> None:
    assert value("aa").string(re.compile("a+")) == "aa"
    refused(lambda: value(bad).string(re.compile("a{1,4096}"), "letters a"), "letters a")


@pytest.mark.parametrize("bad", [0, None, "true"])
def test_booleans(bad: Any) -> None:
    assert value(True).boolean() is True
    refused(lambda: value(bad).boolean(), "true or false")


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ([1, 0], "is not ascending"),
        ([0, 0], "is not ascending"),
        ([-1, 0], "goes from -1 to 0"),
        ([0, 10], "goes from 0 to 10"),
        ([2**70], "goes from"),
        ([0.0], "an array of whole numbers"),
        ([True], "an array of whole numbers"),
        ({"0": 1}, "an array of whole numbers"),
        ("012", "an array of whole numbers"),
    ],
)
def test_positions(bad: Any, why: str) -> None:
    assert value([]).integers(below=0) == ()
    assert value([0, 3, 9]).integers(below=10) == (0, 3, 9)
    refused(lambda: value(bad).integers(below=10), why)


def test_objects_and_arrays() -> None:
    whole = strict_json.parse(b'{"a": {"b": [1, "c"]}, "n": null}', "f")
    assert [*whole.member("a").member("b").items()][1].string() == "c"
    assert whole.member("none", 5).integer() == 5
    assert whole.member("n").value is None
    assert list(whole.object()) == ["a", "n"]
    refused(lambda: whole.member("z"), "'f' has no 'z'")
    refused(lambda: whole.member("a").member("b").member("c"), "a.b is an array", "an object")
    refused(lambda: next(whole.member("a").items()), "a is an object", "an array")
    refused(lambda: next(whole.member("a").member("b").items()).object(), "a.b[0] is 1")


def test_plain_values() -> None:
    good = {"a": [1, 2.5, None, True, "é\n"], "b": {"c": {}}}
    assert strict_json.parse(json.dumps(good), "f").plain() == good
    deep: Any = []
    for _ in range(strict_json.MAX_DEPTH):
        deep = [deep]
    refused(lambda: strict_json.parse(json.dumps(deep), "f").plain(), "is nested too deep")
    refused(lambda: strict_json.parse('{"a": [1e400]}', "f").plain(), "a[0] is inf")
    refused(lambda: strict_json.parse('{"a": "\\ud800"}', "f").plain(), "a text")
    refused(lambda: strict_json.parse('{"\\ud800": 1}', "f").plain(), "a text")


def test_millions_of_plain_values_take_no_time() -> None:
    """With one `Value` per item 30 MB took a minute."""
    data = '{"a": [' + "1," * 5_000_000 + "1]}"
    whole = strict_json.parse(data, "f")
    started = time.process_time()
    assert len(whole.plain()["a"]) == 5_000_001
    refused(lambda: strict_json.parse(data[:-3] + '"\\ud800"]}', "f").plain(), "a[5000000]", "a text")
    assert time.process_time() - started < 15


def test_a_long_value_is_cut_in_the_message() -> None:
    refused(lambda: value("x" * 10**6).integer(), "'xxxx")
    refused(lambda: value("\x1b[2J").integer(), "[2J")


def test_empty_arrays_by_the_million() -> None:
    """Each takes two bytes in the file, and 64 in memory."""
    data = b"[" + b"[]," * strict_json.MAX_NESTED + b"1]"
    refused(lambda: strict_json.parse(data, "f.json"), "'f.json' has 4000001 arrays and objects", "at most 4000000")
    refused(lambda: strict_json.parse(data.decode(), "f.json"), "has 4000001 arrays and objects")
