"""The corpus's listing against what the dataset holds: new, changed, unchanged, deleted, retried.

difference.py   compare(): both sides in, work and dropped rows out
columns.py      the columns of both sides and of the work
result.py       what it finds
index.py        what the dataset and interrupted runs hold, as columns for the comparison
_exchange.py    two streams of tables, in partitions of equal ids, spilled to disk where they are many
_partition.py   the comparison of one partition, as arrays
"""
