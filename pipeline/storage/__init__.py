"""Files on any fsspec URL: a local folder, S3 and memory behave alike. All access to files goes through here.

urls.py          the file system that a URL names, and the path on it
files.py         exists, read, list, move, remove
publication.py   files that appear whole or not at all; exclusive creation, which is how a dataset commits
blob.py          one file of the corpus: size, bytes, a seekable file
preflight.py     whether a place can be read and written, before a run starts
roots.py         where the files of a corpus may lie
local_files.py   local files below a folder, reached without following a link
ranges.py        a remote file as a seekable file that fetches ranges
remote_file.py   a remote file of which only the named ranges are fetched
seekable.py      what both have in common
retry.py         what is tried again, with backoff and jitter
_dataset_errors.py    errors of a file system as one line

It imports `core` only.
"""

from __future__ import annotations

from pipeline.storage.blob import Blob
from pipeline.storage.files import (
    MAX_READ_BYTES,
    entries,
    exists,
    is_file,
    list_files,
    list_folders,
    move,
    read_bytes,
    remove,
    remove_folder,
)
from pipeline.storage.preflight import check_readable, check_writable
from pipeline.storage.publication import AtomicFile, publish, publish_new
from pipeline.storage.urls import absolute, in_one_process, is_local, join, local_uri, split

__all__ = [
    "MAX_READ_BYTES",
    "AtomicFile",
    "Blob",
    "absolute",
    "check_readable",
    "check_writable",
    "entries",
    "exists",
    "in_one_process",
    "is_file",
    "is_local",
    "join",
    "list_files",
    "list_folders",
    "local_uri",
    "move",
    "publish",
    "publish_new",
    "read_bytes",
    "remove",
    "remove_folder",
    "split",
]
