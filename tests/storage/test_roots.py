"""Which files may be read: by the text of their path, and by their real path."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest

from pipeline.core.errors import SampleError
from pipeline.storage.blob import Blob
from pipeline.storage.roots import AllowedRoots
from pipeline.storage.urls import local_uri


@pytest.mark.parametrize(
    ("place", "allowed"),
    [
        ("/data/in/a.jpg", True),
        ("/data/in/deep/..hidden/a..b.jpg", True),
        ("/data/in/x/../a.jpg", True),
        ("/data/in/./a.jpg", True),
        ("//data/in//a.jpg", True),
        ("/data/in", False),
        ("/data/inside/a.jpg", False),
        ("/data/in/../secret", False),
        ("/data/in/a/../../secret", False),
        ("/etc/passwd", False),
        ("/proc/self/environ", False),
        ("s3://bucket/x/a.jpg", True),
        ("s3://bucket/x/a%20b.jpg", True),
        ("s3://bucket/xy/a.jpg", False),
        ("s3://bucket/x/../y/a.jpg", False),
        ("s3://bucket/x/%2e%2e/y/a.jpg", False),
        ("s3://bucket/x/..", False),
        ("s3://bucket2/x/a.jpg", False),
        ("gs://bucket/x/a.jpg", False),
        ("data/in/a.jpg", False),
    ],
)
def test_by_text(place: str, allowed: bool) -> None:
    roots = AllowedRoots(("/data/in/", "s3://bucket/x"))
    assert roots.allows(place) is allowed
    assert pickle.loads(pickle.dumps(roots)).allows(place) is allowed
    if not allowed:
        with pytest.raises(SampleError, match=r"forbidden: .* lies outside of what source\.roots allows"):
            roots.check(place)


def test_the_kernels_folders_are_never_allowed() -> None:
    everything = AllowedRoots(("/",), follow_symlinks=True)
    assert everything.allows("/data/a")
    assert everything.allows("/device/a")
    for place in ("/proc/self/environ", "/sys/a", "/dev/sda", "/dev/shm/a", "/data/../proc/1/mem", "/proc"):
        assert not everything.allows(place)
        with pytest.raises(SampleError, match="forbidden"):
            everything.check_real(os.path.normpath(place), "x")
    shared = AllowedRoots(("/dev/shm/corpus",))  # a folder like any other, where it is asked for by name
    assert shared.allows("/dev/shm/corpus/a")
    assert not shared.allows("/dev/shm/other/a")
    assert not shared.allows("/dev/null")
    assert AllowedRoots(("/proc/self", "/dev/shm/x", "/data")).system_roots() == ["/proc/self"]


def test_what_compares() -> None:
    assert AllowedRoots(("/b", "/a")).plain() == AllowedRoots(("/a", "/b"), key="other").plain() == ("/a", "/b")
    moved = [AllowedRoots((root, "/c"), anchored=False).plain() for root in ("/a", "/b")]
    assert moved == [(".", "/c")] * 2
    odd = AllowedRoots((os.fsdecode(b"/a\xff/\xc3\xa9"),)).plain()
    assert odd == ("/a%FF/é",)
    assert json.loads(json.dumps(odd).encode()) == ["/a%FF/é"]
    assert AllowedRoots(("/a",), follow_symlinks=True).plain() != AllowedRoots(("/a",)).plain()


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for name in ("in", "more", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(name)
    return tmp_path


def _read(path: Path, roots: AllowedRoots) -> bytes:
    blob = Blob(str(path), roots)
    with blob.open() as file:
        found = file.read()
    assert blob.read() == found
    assert blob.size() == len(found)
    return found


def test_links_are_judged_by_where_they_lead(folders: Path) -> None:
    roots = AllowedRoots((str(folders / "in"), str(folders / "more")))
    for name, target in {"back": "in/a.txt", "more": "more/a.txt", "out": "out/a.txt", "dir": "out"}.items():
        (folders / "in" / name).symlink_to(folders / target)
    (folders / "in" / "environ").symlink_to("/proc/self/environ")
    (folders / "in" / "kernel").symlink_to("/proc")
    assert _read(folders / "in" / "a.txt", roots) == b"in"
    assert _read(folders / "in" / "back", roots) == b"in"
    assert _read(folders / "in" / "more", roots) == b"more"
    free = AllowedRoots((str(folders / "in"),), follow_symlinks=True)
    assert _read(folders / "in" / "out", free) == b"out"
    assert _read(folders / "in" / "dir" / "a.txt", free) == b"out"
    for name, some in (
        ("out", [roots]),
        ("dir/a.txt", [roots]),
        ("environ", [roots, free]),
        ("kernel/version", [free]),
    ):
        for one in some:
            blob = Blob(str(folders / "in" / name), one)
            for call in (blob.open, blob.read, blob.size):
                with pytest.raises(SampleError, match=r"forbidden: .* leads to") as caught:
                    call()
                assert caught.value.kind == "forbidden"


def test_a_root_may_be_a_link_itself(folders: Path) -> None:
    (folders / "current").symlink_to(folders / "in")
    roots = AllowedRoots((str(folders / "current"),))
    assert _read(folders / "current" / "a.txt", roots) == b"in"


def test_a_name_that_is_not_utf8_is_judged_too(folders: Path) -> None:
    odd = os.fsdecode(os.fsencode(folders) + b"/in/caf\xe9")
    os.symlink(folders / "out" / "a.txt", odd)
    with pytest.raises(SampleError, match="forbidden"):
        Blob(local_uri(odd), AllowedRoots((str(folders / "in"),))).read()


def test_pipes_and_devices_are_refused_without_opening_them(folders: Path) -> None:
    os.mkfifo(folders / "in" / "pipe")
    for allowed in (None, AllowedRoots((str(folders / "in"),))):
        blob = Blob(str(folders / "in" / "pipe"), allowed)
        for call in (blob.open, blob.read, blob.size):
            with pytest.raises(SampleError, match="unsupported: not a regular file"):
                call()


def test_a_name_with_a_nul_is_no_file(folders: Path) -> None:
    for allowed in (None, AllowedRoots((str(folders / "in"),))):
        with pytest.raises(SampleError, match="missing"):
            Blob(f"{folders}/in/a.txt\0.jpg", allowed).size()


def test_a_swap_of_names_while_it_is_opened_reads_nothing_else(folders: Path) -> None:
    """A link that alternates between inside and outside: the file that is read is always the one that was checked."""
    inside, outside, link = folders / "in" / "a.txt", folders / "out" / "a.txt", folders / "in" / "link"
    link.symlink_to(inside)
    (folders / "go").touch()
    child = os.fork()
    if not child:
        while (folders / "go").exists():
            for target in (outside, inside):
                os.symlink(target, folders / "next")
                os.rename(folders / "next", link)
        os._exit(0)
    roots = AllowedRoots((str(folders / "in"),))
    read = refused = 0
    try:
        while read < 300 or refused < 300:
            try:
                found = Blob(str(link), roots).read()
            except SampleError as error:
                found = error.kind.encode()
            assert found in (b"in", b"forbidden")
            read, refused = read + (found == b"in"), refused + (found == b"forbidden")
    finally:
        (folders / "go").unlink()
        os.waitpid(child, 0)


def test_a_file_stays_the_one_that_was_checked(folders: Path) -> None:
    """Size, first bytes and content are of the same file, even if its name leads elsewhere in between."""
    path = folders / "in" / "a.txt"
    blob = Blob(str(path), AllowedRoots((str(folders / "in"),)))
    assert blob.size() == 2
    path.unlink()
    path.write_text("another")
    assert (blob.read(), blob.read(1)) == (b"in", b"i")
    with blob.open() as file:
        assert file.read() == b"in"
    before = len(os.listdir("/proc/self/fd"))
    assert pickle.loads(pickle.dumps(blob)).read() == b"another"  # what is open stays in its process
    del blob
    assert len(os.listdir("/proc/self/fd")) == before - 1
