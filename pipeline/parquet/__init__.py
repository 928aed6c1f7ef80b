"""Parquet files that somebody else may have written: opened without extension types, read within bounds.

file.py           opening: every Parquet file of the package is opened here
bounded_file.py   a row group that takes too much memory is refused before it is decoded
pages.py          page headers and what they claim
levels.py         definition and repetition levels, and the lengths of lists that follow from them

It imports `storage` and `core`.
"""

from __future__ import annotations

from pipeline.parquet.file import MAX_FOOTER_BYTES, MAX_LIST, STORED_EXTENSION, File, Footer, open_parquet

__all__ = ["MAX_FOOTER_BYTES", "MAX_LIST", "STORED_EXTENSION", "File", "Footer", "open_parquet"]
