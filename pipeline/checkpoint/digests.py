"""SHA-256 of the files of a checkpoint."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import lru_cache

_SAMPLES, _SAMPLE_BYTES = 64, 64 << 10
"""How many parts of a large file `sampled_sha256` reads, and how many bytes of each."""


def file_sha256(path: str) -> str:
    """Returns the SHA-256 (hex) of a file's content. Cached until the size or modification time changes."""
    found = os.stat(path)
    return _file_sha256(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=1024)
def _file_sha256(path: str, size: int, mtime_ns: int) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sampled_sha256(path: str) -> str:
    """Returns the SHA-256 (hex) of a file's size and of evenly spaced samples of its content; of all of a small one."""
    with open(path, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        total = hashlib.sha256(str(size).encode())
        if size <= _SAMPLES * _SAMPLE_BYTES:
            total.update(stream.read())
        else:
            for number in range(_SAMPLES):
                stream.seek(number * (size - _SAMPLE_BYTES) // (_SAMPLES - 1))
                total.update(stream.read(_SAMPLE_BYTES))
    return total.hexdigest()


def of_folder(path: str, suffixes: tuple[str, ...], digest: Callable[[str], str] = file_sha256) -> str:
    """Returns the SHA-256 (hex) over the names and digests of the files with one of ``suffixes``."""
    total = hashlib.sha256()
    for name in sorted(file for file in os.listdir(path) if file.endswith(suffixes)):
        total.update(f"{name}:{digest(os.path.join(path, name))};".encode())
    return total.hexdigest()
