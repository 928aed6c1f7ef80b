"""Hostile and careless YAML gets one line; what is plain reads as PyYAML reads it."""

from __future__ import annotations

import pytest
import yaml

from pipeline import yamls
from pipeline.errors import ConfigError


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
        ("a: 1\nb: 2\na: 3", r"x\.yaml: is not YAML \(.*'a' stands there twice.*line 3"),
        ("a: {b: {c: 1, c: 1}}", r"'c' stands there twice"),
        ("a: 2001-99-99", r"x\.yaml: is not YAML"),
        ("[" * 5000, r"x\.yaml: is not YAML"),
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
