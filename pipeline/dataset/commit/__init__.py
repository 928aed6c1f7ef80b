"""How a dataset gets from one snapshot to the next, by one writer at a time, whenever a process is killed.

snapshots.py     a committed list of files; creating the next one exclusively is the commit
data_files.py    a Parquet file of a snapshot, its deleted positions, and where it lies
catalog.py       the versions of a dataset, and the one that readers get
transaction.py   one writer's way from a snapshot to the next: take over, commit, move, clean up
lease.py         one writer at a time
folder.py        a dataset's folder, reached without following a link
"""
