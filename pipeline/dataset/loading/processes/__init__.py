"""The processes of a reader: what each reads, and what a trainer shares with its workers, and ranks with one another.

share.py            Share: the batches of one process; reads them
worker_memory.py    WorkerMemory: the epoch that workers read, and what they have read; in shared memory
worker_state.py     WorkerState: how far a worker process of another loader has read
worker_errors.py    raises an error of a worker process in the trainer's process, as it was
rank_comparison.py  compares what the ranks read, through the store of torch's process group

`worker_memory`, `worker_errors` and `rank_comparison` use torch.
"""
