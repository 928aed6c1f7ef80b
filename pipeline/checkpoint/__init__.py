"""A model checkpoint: a folder, a URL or a hub id, safetensors only.

checkpoint.py      CheckpointConfig, Checkpoint, finding it
fetched.py         copies of what URLs name, fetched once per machine
digests.py         SHA-256 of its files
files.py           checks all files of a checkpoint before a library opens them
_whole_folder.py   checks that a folder holds a complete checkpoint
_regular_file.py   checks that a file is a regular file
_json.py           reads JSON within limits
_keys.py           keys of a config that name code, files or models elsewhere
_numbers.py        numbers of a config that make a model too large
_audio_filters.py  numbers of a config that make the filters of a feature extractor too large
_memory.py         bounds the memory of the process while a model is built

It imports `storage` and `core`.
"""
