"""Memory, threads and private files of a process.

allocator.py        makes glibc keep freed memory
periodic_task.py    calls a function every few seconds, in a thread of its own
private_folder.py   temporary folders that only this user can enter
read_write_lock.py  a lock for many readers or one writer
"""
