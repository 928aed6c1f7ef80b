"""Parquet shards: writing finished rows, and reading the rows that are not deleted.

writer.py         ShardWriter: the rows of one write task, into shards, failure shards and the task's record
row_files.py      RowFiles: rows into files of about equal size; Parquet options and the footer
write_result.py   Written: what a task wrote, and whether every planned row and cell is accounted for
filters.py        which rows a filter keeps, and which columns it reads
reader.py         the rows of one shard that are not deleted; finds the shard if later runs have moved it
"""
