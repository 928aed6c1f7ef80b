"""Access to files on any fsspec URL. A local folder, S3 and memory behave alike; the package opens all files here.

urls.py             the file system of a URL, and the path on it
files.py            exists, read, list, move, remove
publication.py      atomic writes, and exclusive creation, which commits of a dataset use
blob.py             one file of the corpus: size, bytes, a seekable file
preflight.py        checks before a run that a URL can be read or written
roots.py            the folders in which the files of a corpus must lie
local_files.py      local files below a folder, accessed without following links
ranges.py           a remote file of the corpus, read in ranges that are kept
range_requests.py   the requests for them
remote_file.py      a file on an object store of which only requested ranges are read
settings.py         endpoints of S3 buckets, and how long a storage that fails is waited for
retry.py            retries of transient errors, with backoff and jitter
_new_file.py        a local file that is written under a temporary name
_dataset_errors.py  converts errors of a dataset's file system

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
    remote_info,
    remote_version,
    remove,
    remove_empty_folder,
    remove_folder,
)
from pipeline.storage.preflight import advice, check_answers, check_listable, check_readable, check_writable
from pipeline.storage.publication import AtomicFile, publish, publish_new
from pipeline.storage.retry import Truncated
from pipeline.storage.urls import absolute, in_one_process, is_local, join, local_uri, split

__all__ = [
    "MAX_READ_BYTES",
    "AtomicFile",
    "Blob",
    "Truncated",
    "absolute",
    "advice",
    "check_answers",
    "check_listable",
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
    "remote_info",
    "remote_version",
    "remove",
    "remove_empty_folder",
    "remove_folder",
    "split",
]
