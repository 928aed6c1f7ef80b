"""What both sources use.

sample_ids.py      ids, roles, schemes and version tokens of files
refused_roots.py   counts the rows of a listing whose files lie outside the allowed roots
"""
