"""Reads untrusted Parquet files: without extension types, and within limits on memory.

file.py          opens a file; the package opens all Parquet files here
bounded_file.py  a file that refuses row groups which take too much memory
decoded_size.py  bytes that a column chunk takes in memory
pages.py         the pages of a column chunk, and the sizes of their values
levels.py        definition levels, and the memory that nulls take
regular_lists.py decodes lists of equal lengths without their levels
_page_header.py  parses the header of a page
_flat_file.py    makes a file of decoded pages, in memory

It imports `storage` and `core`.
"""

from __future__ import annotations

from pipeline.parquet.file import MAX_FOOTER_BYTES, MAX_LIST, STORED_EXTENSION, Footer, ParquetFile, open_parquet
from pipeline.parquet.levels import leaf_numbers

__all__ = ["MAX_FOOTER_BYTES", "MAX_LIST", "STORED_EXTENSION", "Footer", "ParquetFile", "leaf_numbers", "open_parquet"]
