"""What every other part speaks: errors, media, columns, Arrow arrays, and what a terminal may show.

errors.py            ConfigError, SampleError and kin: how each is reported
media.py             modalities, decoded media and their one clock
schema.py            columns, Arrow types, units, the contract's version
arrow.py             numpy arrays to Arrow columns and back
redaction.py         secrets in URLs and texts
escaping.py          control and invisible characters as visible escapes
terminal.py          tables and wrapped lines on a terminal
strict_json.py       JSON that somebody else may have written
private_folder.py    temporary folders that only this user may enter
read_write_lock.py   many readers or one writer
section.py           the base of all sections of a config
versions.py          versions of the libraries that compute the values
allocator.py         glibc keeps freed pages for the next row

It imports nothing of the package.
"""
