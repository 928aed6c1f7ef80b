"""What the sources share.

sample_ids.py      ids, roles, schemes and version tokens of files
patterns.py        globs, and what they exclude
refused_roots.py   samples whose files lie where the source does not allow
tables.py          a manifest of any format as tables
table_reader.py    what all readers of tables have in common
text_table.py      the rows of a text format, and those that cannot be parsed
csv_table.py       CSV and TSV
jsonl_table.py     JSON lines
parquet_table.py   Parquet
parquet_folder.py  a folder of Parquet files
checked_file.py    pages of a Parquet manifest, checked before pyarrow decodes them
"""
