"""Keeps the decoded row groups of a process within a limit of bytes, and the footers of their files.

decoded_bytes.py  bytes that a row group takes when it is decoded, from the footer
footers.py        Footers: those that were read
open_groups.py    OpenGroups: the row groups that are decoded, and those that are being decoded
"""
