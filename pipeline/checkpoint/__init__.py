"""A model on disk: a hub id or a folder, safetensors only.

checkpoint.py   CheckpointConfig, resolving it, digests, what is loaded from it
files.py        what its files may be, and how much they may ask for

It imports `storage` and `core`.
"""
