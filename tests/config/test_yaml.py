"""Hostile and careless YAML gets one line; what is plain reads as PyYAML reads it."""

from __future__ import annotations

import time
import tracemalloc

import pytest
import yaml

from pipeline.config import yaml as yamls
from pipeline.core.errors import ConfigError


def test_plain_yaml_reads_as_pyyaml_reads_it() -> None:
    text = "base: &b {x: 1, y: [1, 2.5, null, yes]}\nown: {<<: *b, x: 2}\nlist: [*b, *b]\nwhen: 2001-01-01\n"
    assert yamls.parse(text, "x.yaml") == yaml.safe_load(text)
    assert yamls.parse("", "x.yaml") is None


_LAUGHS = "a: &a [l, l, l, l, l, l, l, l, l, l]\n" + "\n".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 10)}]" for i in range(9)
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [", r"x\.yaml: is not YAML"),
        ("a: 1\nb: 2\na: 3", r"x\.yaml: is not YAML \(.*'a' appears twice.*line 3"),
        ("a: {b: {c: 1, c: 1}}", r"'c' appears twice"),
        ("a: 2001-99-99", r"x\.yaml: is not YAML"),
        ("[" * 5000, r"x\.yaml: over 100000 values or 50 levels"),
        ("- " * 5000, r"x\.yaml: over 100000 values or 50 levels"),
        ("[" + "a," * 200_000, r"x\.yaml: over 100000 values"),
        ("a: -0x" + "f" * 6000, r"x\.yaml: is not YAML \(a number of 6003 characters, at most 100, line 1"),
        ("a: " + "9" * 5000, r"a number of 5000 characters"),
        ("a: 1" + ":1" * 300, r"a number of 601 characters"),
        ("a: 1" + ":1" * 300 + ".5", r"a number of 603 characters"),
        ("a: !!int ''", r"x\.yaml: is not YAML \(found the tag 'tag:yaml.org,2002:int', line 1"),
        ("a: !!bool maybe", r"found the tag"),
        ("a: !!pairs [b: c]", r"found the tag"),
        ("a: !x b", r"found the tag '!x'"),
        ("a: &a {<<: [1, 2]}", r"<< takes other mappings"),
        ("a: &a {<<: *a}", r"<< takes other mappings"),
        ("a: &a {b: &b {<<: &c {<<: *b}}}", r"x\.yaml: is not YAML"),
        ("a: " + "b" * (1 << 20), r"x\.yaml: 1048579 characters; at most 1048576"),
        ("!!python/object/apply:os.system ['true']", r"x\.yaml: is not YAML"),
        ("? {a: 1}\n: 2", r"x\.yaml: is not YAML"),
        (_LAUGHS, r"x\.yaml: over 100000 values"),
        ("a: &a [*a]", r"x\.yaml: over 100000 values or 50 levels"),
        ("a: \x00", r"x\.yaml: is not YAML"),
    ],
)
def test_what_is_refused(text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected) as caught:
        yamls.parse(text, "x.yaml")
    assert "\n" not in str(caught.value)


def _merges(levels: int, width: int, pairs: int) -> str:
    """``width ** levels`` pairs once ``<<`` is unfolded."""
    text = "a0: &a0 {" + ", ".join(f"k{i}: 1" for i in range(pairs)) + "}\n"
    for i in range(1, levels):
        text += f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * width)}]}}\n"
    return text


@pytest.mark.parametrize(
    "text",
    [
        _merges(30, 10, 1),
        _merges(100, 2, 5),
        _merges(4, 100, 100),
        "".join(f"m{i}: &m{i} {{k{i}: 1, <<: *m{i - 1}}}\n" for i in range(1, 3000)).replace("<<: *m0", "x: 1"),
    ],
    ids=["600 bytes", "halves", "wide", "sums"],
)
def test_merges_are_bounded_before_they_take_time_or_memory(text: str) -> None:
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(ConfigError, match="over 100000 values"):
        yamls.parse(text, "x.yaml")
    assert time.process_time() - started < 10
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()


def test_merges_read_as_pyyaml_reads_them() -> None:
    for text in (
        "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {<<: [*a, *b], z: 3}\nd: {z: 3, <<: *a, <<: *b}\n",
        "x: {n: &b {<<: &a {k: 1, l: 2}, m: 1}}\nc: {<<: *b, m: 2}\n",
        "a: &a {}\nb: &b {<<: *a}\nc: [{<<: [*a, *b]}, *b]\n",
        "a: {<<: []}\n",
    ):
        assert yamls.parse(text, "x.yaml") == yaml.safe_load(text)


def test_a_key_that_overrides_a_merged_one_stands_there_once() -> None:
    """Whichever of both mappings is made first."""
    text = "c: {d: {e: &b {<<: &a {k: 1}, k: 2}}}\nf: {<<: *b}\n"
    assert yamls.parse(text, "x.yaml") == {"c": {"d": {"e": {"k": 2}}}, "f": {"k": 2}}


def test_no_piece_of_the_text_is_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        yamls.parse("a: {b: s3://key:hunter2@bucket/x: [}", "--set a")
    assert "hunter2" not in str(caught.value)
    assert "line 1, column " in str(caught.value)
