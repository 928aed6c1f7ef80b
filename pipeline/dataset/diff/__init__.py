"""Compares the listing of the corpus with the content of the dataset: which samples are new, changed, unchanged,
deleted or retried.

difference.py        compare(): the listing and the dataset's content in; samples to compute and rows to delete out
columns.py           the columns of the dataset's content, and those that are added to the samples to compute
result.py            Difference: the counts and the rows to delete
index.py             the content of the dataset and of interrupted runs, as tables for the comparison
_retry.py            RetryPolicy: which failures are tried again
_stored_rows.py      the ids, versions and windows in one file of a dataset
_partitioner.py      splits two streams of tables into partitions of equal ids; spills to disk if they are large
_partition.py        the two sides of one partition, as arrays
_classification.py   the classes of the samples of one partition, and the adopted work of interrupted runs
_work_table.py       the table of samples to compute of one partition
_arrays.py           sets of (sample, window), and list columns
"""
