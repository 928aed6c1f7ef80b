"""The order in which rows are read, and how it is shared. No module reads a file.

epoch.py        one dataset: streams of row groups, in chunks
mixture.py      several datasets, each with its share of the rows
deal.py         which batches a rank reads, and the last round
permutation.py  pseudorandom permutations that depend only on their keys
"""
