"""A digest says whether two files are the same; one of samples says so of large files in a moment."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path

import pytest

from pipeline.checkpoint import digests


def test_a_file_s_digest_follows_its_content(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for content in (b"one", b"two", b""):
        path.write_bytes(content)
        os.utime(path, ns=(0, len(content) + content[:1].count(b"o")))  # even where the clock is too coarse
        assert digests.file_sha256(str(path)) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("size", [0, 100, 20 << 20])
def test_samples_of_a_file(tmp_path: Path, size: int) -> None:
    """Any change of a 63rd of a large file is found, and any of a small one."""
    path = tmp_path / "a"
    data = random.Random(0).randbytes(size)
    path.write_bytes(data)
    before = digests.sampled_sha256(str(path))
    for place in (0, size // 2, size - 1) if size else ():
        part = max(1, size // 63)
        changed = bytearray(data)
        changed[place : place + part] = (255 - one for one in data[place : place + part])
        path.write_bytes(changed)
        assert digests.sampled_sha256(str(path)) != before
    path.write_bytes(data + b"x")
    assert digests.sampled_sha256(str(path)) != before
    path.write_bytes(data)
    assert digests.sampled_sha256(str(path)) == before


def test_a_folder_s_digest_is_that_of_names_and_contents(tmp_path: Path) -> None:
    for name in ("a.json", "b.json", "c.bin"):
        (tmp_path / name).write_text(name)
    before = digests.of_folder(str(tmp_path), (".json",))
    (tmp_path / "c.bin").unlink()
    assert digests.of_folder(str(tmp_path), (".json",)) == before
    (tmp_path / "a.json").rename(tmp_path / "d.json")
    assert digests.of_folder(str(tmp_path), (".json",)) != before
