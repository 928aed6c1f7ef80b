"""Manifests of every format as tables.

opening.py               opens a manifest by its format
table_reader.py          what a reader of any format returns, and its limits
column_types.py          Arrow types of columns: which can be stored, and how many bytes their values take
text_table.py            rows of a text format, and those that cannot be parsed
csv_table.py             CSV and TSV
csv_header.py            the first row of a CSV, and the separator that it suggests
csv_quotes.py            finds a quoted field that is never closed
jsonl_table.py           JSON lines
jsonl_types.py           one Arrow type for the values of a JSON column
parquet_table.py         a Parquet file
parquet_folder.py        a folder of Parquet files as one table
parquet_folder_files.py  the Parquet files in a folder
checked_file.py          checks the page headers of a Parquet file before pyarrow decodes the pages
"""
