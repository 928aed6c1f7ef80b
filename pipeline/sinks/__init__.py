"""Rows -> Parquet shards and failures.

`shards` writes and keeps the books, without Ray; `ray_sink` is the same as a `ray.data.Datasink`.
"""
