"""Memory, threads, cores, devices and private files of a process.

allocator.py        makes glibc keep freed memory
cgroups.py          the cgroups of this process
cpus.py             the CPU cores that this process may use
daemon_thread.py    calls that may outlast the program
devices.py          the GPUs that this process may use
memory.py           the memory that this process may use
pandas_import.py    keeps pandas out of worker processes
periodic_task.py    calls a function every few seconds, in a thread of its own
private_folder.py   folders that only this user can enter
read_write_lock.py  a lock for many readers or one writer
"""
