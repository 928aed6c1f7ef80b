"""What the processes of a reader share: a trainer with its worker processes, and the ranks with one another.

worker_memory.py    WorkerMemory: the epoch that workers read, and what they have read; in shared memory
rank_comparison.py  compares what the ranks read, through the store of torch's process group

Both modules use torch.
"""
