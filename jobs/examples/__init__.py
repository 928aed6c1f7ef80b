"""Examples of training on a dataset, in plain PyTorch: each runs in less than a minute on two cores.

    python -m jobs.examples.contrastive --dataset .demo/first

contrastive.py    two modalities of a row into one space, by linear heads
masked_token.py   a small transformer predicts masked token ids
masked_patch.py   a small transformer predicts masked patches
linear_probe.py   a linear probe on embeddings
distributed.py    two ranks, with checkpoints: it goes on after a kill, on any number of ranks
_common.py        what they share: arguments, columns by modality, held-out rows, what they print

Each prints the loss at the beginning and at the end, and a figure on held-out rows against chance. The rows of the demo
are few, so the figures say that something is learned, not how good a method is. Held-out rows are chosen by a hash of
``sample_id``, so that no sample is on both sides, and a sample stays on its side when others are added.
"""
