"""How a dataset gets from one snapshot to the next: one writer at a time, and safe if a process is killed at any point.

snapshots.py     a snapshot is a committed list of files; creating the next one exclusively is the commit
data_files.py    the Parquet files of a snapshot: kind, path, digest, deleted positions, and finding them
catalog.py       the versions of a dataset, and the current one
transaction.py   one writer's transaction: take the lease, resume interrupted runs, commit, move files, clean up
_running.py      announcements of runs that have begun and not committed
_garbage.py      deletes files and folders of finished runs that no snapshot names
pins.py          names for snapshots, which `vacuum` leaves to the training that reads them
_pin_files.py    the files of pins, and changing them without the lease
lease.py         the lock of a version: one writer at a time
_processes.py    identifies the process that holds a lease
folder.py        access to the files of a dataset that follows no symbolic link
"""
