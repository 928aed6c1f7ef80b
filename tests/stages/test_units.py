"""Units of work."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.stages.units import unit_rows
from tests.stages.media_fixtures import IMAGE, config


@pytest.mark.parametrize(
    ("asked", "samples", "expected"),
    [(None, 40, 32), (None, 4_000, 62), (None, 40_000, 128), (None, 60_000, 256), (7, 40, 7), (7, 60_000, 256)],
)
def test_blocks_are_smaller_where_there_are_few_samples(
    tmp_path: Path, asked: int | None, samples: int, expected: int
) -> None:
    compute = {} if asked is None else {"block_rows": asked}
    settings = config(tmp_path, {"i": IMAGE}, compute=compute)
    assert unit_rows(settings, samples) == expected
    if asked is None:
        assert unit_rows(settings, 40, of=1_000_000) == 128, "the last of many partitions"
