"""Arrow table -> Arrow table: plain, re-entrant classes, which no engine is needed to run or test.

units.py            the work of a run, in units that a task takes as one block
probe.py            samples -> rows: opens headers, cuts windows
windows.py          how a sample that has times is cut
decode.py           rows -> model inputs: fetches, decodes, tokenizes
encode.py           model inputs -> finished rows: encodes, projects into the space
reuse.py            columns that an earlier version, or the row before a retry, has already
rows.py             the columns of a row on its way, its failures and meters
block_splitter.py   blocks that would take too much memory, in parts

It imports `sandbox`, `config` and everything below them.
"""
