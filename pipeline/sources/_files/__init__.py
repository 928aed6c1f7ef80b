"""The parts of the files source, from the config to the rows of the listing.

config.py       its section of the config
location.py     the folder to walk, taken from the configured path
patterns.py     globs
selection.py    which paths are samples, and which folders can hold some
omissions.py    counts the files that cannot be samples, by reason
local_walk.py   the files below a local folder
remote_walk.py  the files below a prefix of an object store or of another remote file system
grouping.py     files of one folder to samples
"""
