"""The stages of a run: re-entrant classes that map Arrow tables to Arrow tables, without any engine.

units.py            the planned samples of a run, in units that one task takes as one block
probe.py            samples -> rows: opens headers, cuts samples into windows
_sample_media.py    what the files of one sample hold
_sample_windows.py  the windows of one sample and their rows: cuts, merges and matches them with stored rows
windows.py          cuts a duration into windows
decode.py           rows -> model inputs: fetches, decodes, tokenizes
_media_cache.py     the open files and decoded media of one sample
encode.py           model inputs -> finished rows: encodes, projects into the embedding space
_encoded_columns.py what encoders return -> the columns that are stored
reuse.py            columns taken from rows that a dataset has: of another version, or before a retry
_row_checks.py      which rows may keep columns of their stored rows
rows.py             the columns of rows between stages, their failures and meters
block_splitter.py   splits blocks that would take too much memory

This package imports `sandbox`, `config` and everything below them.
"""
