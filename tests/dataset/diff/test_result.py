"""What the comparison finds."""

from __future__ import annotations

import pytest

from pipeline.dataset.diff import result
from pipeline.dataset.diff.difference import compare
from tests.dataset.diff.test_difference import listing


def test_an_id_twice_is_told() -> None:
    with pytest.raises(result.DuplicateIdError, match="b"):
        compare([listing({"a": "1", "b": "1"}), listing({"b": "2"})], [], emit=lambda table: None)
