"""Types and functions that all other packages use: errors, media, columns, Arrow arrays, terminal output.

errors.py           ConfigError, SampleError and the other errors
media.py            modalities, decoded media, requests for media
schema.py           columns, Arrow types, units, version of the contract
arrow.py            numpy arrays to Arrow columns and back
redaction.py        removes secrets from URLs and texts
_secret_names.py    names of parameters and variables that hold secrets
escaping.py         control and invisible characters as visible escapes
terminal.py         tables and wrapped lines on a terminal
strict_json.py      parses untrusted JSON
durations.py        7d, 12h, 90m as seconds
section.py          base class of the sections of a config
seekable.py         base class of binary files that keep their own position
versions.py         versions of the libraries that compute the values
system/             memory, threads, cores and private files of a process

It imports nothing of the package.
"""
