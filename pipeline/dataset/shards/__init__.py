"""Parquet shards: finished rows in, live rows out.

writer.py         ShardWriter: rows of one write task into shards, failures and the task's record
row_files.py      rows of one destination into files of about one size
write_result.py   what a task wrote, and whether every planned row and cell is accounted for
reader.py         the live rows of one shard, wherever it lies now
"""
