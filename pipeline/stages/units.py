"""The work of a run, in units that a task takes as one block."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.config.models import PipelineConfig

_SMALL, _UNIT = 50_000, 256
"""A partition of more samples than the first is cut into units of the second: units cost the driver memory."""
_BLOCKS = 64
"""A partition is cut into so many, if that makes none smaller than it is worth."""


Unit = tuple[str, int, int]
"""URL of a plan file, its row group, samples."""


def unit_rows(config: PipelineConfig, samples: int, of: int | None = None) -> int:
    """Samples of one unit of a partition of so many, the last of those that hold ``of`` together."""
    if samples > _SMALL:
        return max(config.block_rows, _UNIT)
    return min(config.block_rows, max(config.least_rows, (of or samples) // _BLOCKS))


def unit_table(unit: tuple[str, int, int]) -> pa.Table:
    """A unit as a block for the engine: where its work lies."""
    return pa.table({"url": [unit[0]], "group": [unit[1]]})


def read_unit(table: pa.Table) -> pa.Table:
    """The work of the units that ``table`` names: listing + ``EXTRA``."""
    found = []
    for unit in table.to_pylist():
        with storage.Blob(unit["url"]).open() as file:
            found.append(pq.ParquetFile(file).read_row_group(unit["group"]))
    return pa.concat_tables(found)
