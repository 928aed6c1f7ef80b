"""The parts of the manifest source.

config.py   its section of the config
uris.py     URIs of a row: resolved against the root, checked against the allowed roots
listing.py  rows of the manifest to rows of the listing
"""
