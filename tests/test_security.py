"""SECURITY.md: each test that it names is there, and each way out has one."""

from __future__ import annotations

import ast
import re

from tests.support import ROOT

TEXT = (ROOT / "SECURITY.md").read_text()
ROWS = [
    line for line in TEXT.splitlines() if line.startswith("| ") and not line.startswith(("| it may", "| may not hap"))
]


def test_each_test_that_is_named_is_there() -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", TEXT)
    assert len(named) > 30
    for file, test in named:
        tree = ast.parse((ROOT / "tests" / file).read_text())
        assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, f"{file}::{test}"


def test_each_way_has_a_test() -> None:
    assert len(ROWS) > 20
    without = [row for row in ROWS if ".py::test_" not in row]
    assert [row.split("|")[1].strip() for row in without] == ["run code in a decoder's process"]
