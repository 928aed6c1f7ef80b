"""Reads batches for training: in one order for any number of ranks and workers, and from any batch on.

batches.py       BatchOptions; mix: batches of several datasets
rows.py          single rows as a torch IterableDataset, in stored order
sequence.py      all that decides the rows of a batch; Source: a dataset that is read
order/           the order of the rows, of one dataset or several, and how ranks share it
index.py         the row groups of a snapshot, and the rows of each that are read
place.py         Place: which rows of which epoch a batch has
ranks.py         rank and number of ranks, from torch.distributed or the environment
labels.py        joins a table of labels
map_reader.py    rows by position or id, for samplers
state.py         saves and loads the position
reading.py       decodes row groups ahead, and makes batches of their rows
memory/          keeps the decoded row groups within a limit of bytes
decoded.py       a row group in memory; gathers rows of several
gather.py        copies rows of columns
processes/       what each process reads, and what it shares with the trainer and with other ranks
torch_reader.py  TorchReader: an IterableDataset of batches
loader.py        Loader: a DataLoader that counts what it returns

Modules whose description names a class of torch import torch; `Dataset.to_torch` imports them when it is called.
"""
