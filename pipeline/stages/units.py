"""The planned samples of a run, in units that one task takes as one block."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.config.models import PipelineConfig
from pipeline.core.schema import UNIT
from pipeline.dataset.diff.columns import IF_DONE

_LARGE_PARTITION = 50_000
"""A partition of more samples has units of at least ``_LARGE_UNIT`` samples: each unit takes driver memory."""
_LARGE_UNIT = 256
_TARGET_UNITS = 64
"""A smaller partition is divided into this number of units, unless they get smaller than ``least_rows``."""


Unit = tuple[str, int, int]
"""URL of a plan file, index of a row group in it, number of samples in the row group."""


def unit_rows(config: PipelineConfig, samples: int, of: int | None = None) -> int:
    """Returns the number of samples in each unit of a partition.

    Args:
        config: supplies ``block_rows`` and ``least_rows``.
        samples: number of samples in the partition.
        of: number of samples in this partition and those before it; None: in this one only.
    """
    if samples > _LARGE_PARTITION:
        return max(config.block_rows, _LARGE_UNIT)
    return min(config.block_rows, max(config.least_rows, (of or samples) // _TARGET_UNITS))


def unit_table(unit: tuple[str, int, int]) -> pa.Table:
    """Returns a table of one row that names a unit: the block that an engine starts with."""
    return pa.table({"url": [unit[0]], "group": [unit[1]]})


def unit_name(url: str, group: int) -> str:
    """Returns the name of a unit, unique in its run: ``00003:17``."""
    return f"{url.rpartition('/')[2].removesuffix('.parquet')}:{group}"


def unit_names(table: pa.Table) -> pa.Array:
    """Returns the names of the units that ``table`` names."""
    return pa.array([unit_name(one["url"], one["group"]) for one in table.to_pylist()], pa.string())


def read_unit(table: pa.Table) -> pa.Table:
    """Reads the samples of the units that ``table`` names. Columns: the listing, ``EXTRA`` and `UNIT`."""
    samples = []
    for unit in table.to_pylist():
        with storage.Blob(unit["url"]).open() as file:
            parquet = pq.ParquetFile(file, pre_buffer=False)
            names = [name for name in parquet.schema_arrow.names if name not in IF_DONE.names]
            read = parquet.read_row_group(unit["group"], columns=names, use_threads=False)
        name = pa.array([unit_name(unit["url"], unit["group"])] * len(read), pa.string())
        samples.append(read.append_column(UNIT, name))
    return pa.concat_tables(samples)


def read_places(url: str, groups: list[int]) -> pa.Table:
    """Reads the columns of ``IF_DONE`` of several units of a plan file."""
    with storage.Blob(url).open() as file:
        parquet = pq.ParquetFile(file, pre_buffer=False)
        return parquet.read_row_groups(groups, columns=IF_DONE.names, use_threads=False)
