"""What the processes of a reader share: a trainer with its worker processes, and the ranks with one another.

worker_memory.py    WorkerMemory: the epoch that workers read, and what they have read; in shared memory
worker_state.py     WorkerState: how far a worker process of another loader has read
rank_comparison.py  compares what the ranks read, through the store of torch's process group

Modules except `worker_state` use torch.
"""
