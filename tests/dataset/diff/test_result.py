"""The result of the comparison."""

from __future__ import annotations

import pytest

from pipeline.dataset.diff import result
from pipeline.dataset.diff.difference import compare
from tests.dataset.diff.test_difference import listing


def test_a_duplicate_id_is_an_error() -> None:
    with pytest.raises(result.DuplicateIdError, match="b"):
        compare([listing({"a": "1", "b": "1"}), listing({"b": "2"})], [], emit=lambda table: None)
