"""A folder becomes samples: ids, groups, files left out, versions; on a disk, in memory, on S3."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
from pathlib import Path
from typing import Any

import fsspec
import pytest
from pydantic import ValidationError

from pipeline import config as configs
from pipeline import storage
from pipeline.core.errors import ConfigError, SampleError
from pipeline.sources import files as module
from pipeline.sources.files import Config, FilesSource
from pipeline.storage import local_files
from tests.sources.listing import listed, make, uris
from tests.support import faulty


def test_a_file_that_cannot_be_looked_at_is_not_one_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the file were skipped, its rows would be dropped."""
    make(tmp_path, "a.txt", "b.txt")
    real = os.stat

    def stale(path: Any, **options: Any) -> os.stat_result:
        if str(path).endswith("b.txt"):
            raise OSError(errno.ESTALE, "Stale file handle")
        return real(path, **options)

    monkeypatch.setattr(os, "stat", stale)
    with pytest.raises(ConfigError, match=r"cannot list .*b.txt' \(OSError: .*Stale file handle\)"):
        listed(tmp_path)


def test_folders_are_listed_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the same order as one after the other."""
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    names = [f"{a:02d}/{b:02d}.txt" for a in range(30) for b in range(2)] + ["05/deep/x.txt", "z.txt"]
    for name in names:
        fs.pipe_file(f"/in/{name}", b"x")
    before, now, most, lock = type(fs).ls, 0, 0, threading.Lock()

    def slow(self: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal now, most
        with lock:
            now, most = now + 1, max(most, now + 1)
        time.sleep(0.02)
        with lock:
            now -= 1
        return before(self, *arguments, **options)

    source = FilesSource(Config(kind="files", path="memory://in", include=["**/*.txt"]))
    source.check("source")
    first = [row["sample_id"] for table in source.list() for row in table.to_pylist()]
    monkeypatch.setattr(type(fs), "ls", slow)
    assert [row["sample_id"] for table in source.list() for row in table.to_pylist()] == first
    assert sorted(first) == sorted(names)
    assert most >= 8


@pytest.mark.usefixtures("hasty")
def test_a_digest_that_cannot_be_had_is_not_a_change(tmp_path: Path) -> None:
    make(tmp_path, "a.txt")
    faulty.register()
    faulty.plan(tmp_path, {"a.txt": faulty.Fault("read", "reset")})
    with pytest.raises(ConfigError, match=r"source.version: cannot read .*a.txt.*Connection reset.*run again"):
        listed(f"faulty://{tmp_path}", version="sha256", schemes=("faulty",), include=["*.txt"])


def test_ids_are_relative_paths_with_their_extension(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "sub/deep/b.MP4", "c.flac", "d.txt", "e.bin", "noextension")
    found = listed(tmp_path)
    assert {name: uris(row) for name, row in found.items()} == {
        "a.jpg": {"image": f"{tmp_path}/a.jpg"},
        "sub/deep/b.MP4": {"video": f"{tmp_path}/sub/deep/b.MP4"},
        "c.flac": {"audio": f"{tmp_path}/c.flac"},
        "d.txt": {"text": f"{tmp_path}/d.txt"},
        "e.bin": {"other": f"{tmp_path}/e.bin"},
        "noextension": {"other": f"{tmp_path}/noextension"},
    }


def test_one_stem_is_one_sample_only_if_each_file_has_another_modality(tmp_path: Path) -> None:
    make(tmp_path, "clip.mp4", "clip.wav", "clip.txt", "clip.jpg")
    make(tmp_path, "twice.jpg", "twice.png", "twice.txt")
    make(tmp_path, "x.mp4", "x.srt", "x.nfo2", "other/x.txt")
    make(tmp_path, "taken", "taken.jpg", "taken.txt")
    found = listed(tmp_path)
    assert set(found) == {
        "clip",
        "twice.jpg",
        "twice.png",
        "twice.txt",
        "x",
        "x.nfo2",
        "other/x.txt",
        "taken",
        "taken.jpg",
        "taken.txt",
    }
    assert {role: Path(uri).name for role, uri in uris(found["clip"]).items()} == {
        "text": "clip.txt",
        "image": "clip.jpg",
        "video": "clip.mp4",
        "audio": "clip.wav",
    }
    assert set(uris(found["x"])) == {"text", "video"}
    assert uris(found["taken"]) == {"other": f"{tmp_path}/taken"}


def test_sidecars_and_hidden_files_are_left_out(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "manifest.csv", "sub/manifest.json", ".DS_Store", "sub/._b.jpg", ".git/x.txt")
    make(tmp_path, "README.md", "sub/LICENSE", "ESC10_ATTRIBUTION.txt")
    assert set(listed(tmp_path)) == {"a.jpg"}
    assert "README.md" in listed(tmp_path, exclude=[])
    assert set(listed(tmp_path, exclude=["**/.*", "**/.*/**", "sub/**"], include=["**/*.md", "*.jpg"])) == {
        "a.jpg",
        "README.md",
    }


def test_odd_names_survive_and_open(tmp_path: Path) -> None:
    names = [
        "-dash.txt",
        "new\nline.txt",
        "ünï 音.txt",
        "50%.txt",
        "a::b.txt",
        "http:__x.txt",
        " spaces .txt",
        "q'\".txt",
    ]
    make(tmp_path, *names)
    raw = os.fsencode(tmp_path) + b"/caf\xe9 5%.txt"
    Path(os.fsdecode(raw)).write_text("latin")
    os.mkdir(os.fsencode(tmp_path) + b"/d\xff")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/d\xff/in.jpg")).write_text("inside")
    found = listed(tmp_path)
    assert set(found) == {*names, "caf%E9 5%25.txt", "d%FF/in.jpg"}
    for name in names:
        blob = storage.Blob(found[name]["text_uri"])
        assert (blob.read(), blob.local, blob.uri) == (name.encode(), True, f"{tmp_path}/{name}")
    latin = storage.Blob(found["caf%E9 5%25.txt"]["text_uri"])
    assert (latin.read(), latin.size(), latin.local) == (b"latin", 5, True)
    assert storage.Blob(found["d%FF/in.jpg"]["image_uri"]).read() == b"inside"


def test_two_names_with_one_id_are_told(tmp_path: Path) -> None:
    make(tmp_path, "caf%E9.txt")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")).write_text("latin")
    with pytest.raises(ConfigError, match=r"caf%E9\.txt.*caf\\\\xe9|caf\\xe9.*same sample_id"):
        listed(tmp_path)


def test_two_names_with_one_id_in_two_folders_are_told(tmp_path: Path) -> None:
    for folder in (b"d\xff", b"d%FF"):
        os.makedirs(os.path.join(os.fsencode(tmp_path), folder))
        Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), folder, b"x.txt"))).write_text("words")
    with pytest.raises(ConfigError, match=r"have the same sample_id 'd%FF/x\.txt'; rename one"):
        listed(tmp_path)


def test_what_appears_in_the_corpus_would_be_listed(tmp_path: Path) -> None:
    make(tmp_path, "in/a.txt")

    def lists(path: Path | str, url: str, **options: Any) -> bool:
        return FilesSource(Config(path=str(path), **options)).lists(url)

    shard = str(tmp_path / "in" / "out" / "v1" / "data" / "x.parquet")
    assert lists(tmp_path / "in", shard)
    assert lists(f"{tmp_path}/**", shard)
    assert not lists(tmp_path / "in", shard, exclude=["out"])
    assert not lists(tmp_path / "in", shard, include=["**/*.txt"])
    assert not lists(tmp_path / "in", str(tmp_path / "in2" / "x.parquet"))
    assert not lists(tmp_path / "in", "memory://in/out/x.parquet")
    assert not lists(tmp_path / "in" / "a.txt", shard)


def test_a_path_that_is_too_long_costs_one_sample(tmp_path: Path) -> None:
    """An archive can hold folders so deep that their path is too long."""
    make(tmp_path, "a.txt")
    held = os.open(tmp_path, os.O_RDONLY)
    for number in range(30):
        name = f"{number:02d}" + "x" * 200
        os.mkdir(name, dir_fd=held)
        below = os.open(name, os.O_RDONLY, dir_fd=held)
        os.close(held)
        held = below
        for file in ("b" + "y" * 200 + ".txt", "c.txt"):
            os.close(os.open(file, os.O_CREAT | os.O_WRONLY, dir_fd=held))
    os.close(held)
    found = listed(tmp_path)
    long = {name for name in found if len(str(tmp_path / name)) >= 4096}
    assert 1 <= len(long) <= 3
    assert len(found) >= 1 + 2 * 18
    source = FilesSource(Config(path=str(tmp_path)))
    for name in long:
        (uri,) = uris(found[name]).values()
        with pytest.raises(SampleError, match=r"^io: "):
            storage.Blob(uri, source.allowed_roots()).open()
    local_files.remove_folder(str(tmp_path), next(one.name for one in tmp_path.iterdir() if one.is_dir()))


def test_the_version_tells_a_changed_file(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "a.txt", "b.txt")
    before = listed(tmp_path)
    assert listed(tmp_path) == before
    os.utime(tmp_path / "a.txt", ns=(1, 1))
    touched = listed(tmp_path)
    assert touched["a"]["source_version"] != before["a"]["source_version"]
    assert touched["b.txt"] == before["b.txt"]
    by_content = listed(tmp_path, version="sha256")
    os.utime(tmp_path / "a.txt", ns=(2, 2))
    assert listed(tmp_path, version="sha256") == by_content
    (tmp_path / "a.txt").write_text("A.txt")
    assert listed(tmp_path, version="sha256")["a"] != by_content["a"]
    (tmp_path / "a.jpg").unlink()
    assert set(listed(tmp_path)) == {"a.txt", "b.txt"}


def test_a_hole_of_any_size_is_not_read(tmp_path: Path) -> None:
    make(tmp_path, "a.txt")
    with (tmp_path / "b.txt").open("wb") as file:
        file.truncate(1 << 42)
    by_content = listed(tmp_path, version="sha256")
    assert by_content["b.txt"] == listed(tmp_path)["b.txt"]
    assert by_content["a.txt"] != listed(tmp_path)["a.txt"]
    (tmp_path / "b.txt").write_bytes(b"x")
    assert listed(tmp_path, version="sha256")["b.txt"] != by_content["b.txt"]


def test_the_version_does_not_know_where_the_corpus_lies(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make(tmp_path / name, "a.txt")
        os.utime(tmp_path / name / "a.txt", ns=(7, 7))
    assert listed(tmp_path / "one")["a.txt"]["source_version"] == listed(tmp_path / "two")["a.txt"]["source_version"]


def test_tables_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, *(f"{i}.txt" for i in range(25)), *(f"d/{i}.txt" for i in range(7)))
    monkeypatch.setattr(module, "LISTING_ROWS", 10)
    assert [len(table) for table in FilesSource(Config(path=str(tmp_path))).list()] == [10, 10, 10, 2]
    assert len(listed(tmp_path)) == 32


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"source\.path: .* is an empty folder; a folder or a glob with files; is it"):
        listed(tmp_path)
    make(tmp_path, "README.md")
    with pytest.raises(ConfigError, match=r"source\.path: no file in"):
        listed(tmp_path)
    with pytest.raises(ConfigError, match=r"source\.path: .*does not exist"):
        listed(tmp_path / "no")
    with pytest.raises(ConfigError, match=r"source\.path: .*does not exist"):
        listed(tmp_path / "no" / "*.jpg")
    with pytest.raises(ConfigError, match=r"source\.path: cannot reach"):
        listed("nosuchscheme://x/y", schemes=["nosuchscheme"])


def test_only_schemes_that_are_allowed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    assert listed(f"file://{tmp_path}")
    for url in (
        f"local://{tmp_path}",
        "http://169.254.169.254/latest",
        "reference://x",
        "data:text/plain,x",
        "zip://a",
    ):
        with pytest.raises(ValidationError, match="schemes that are allowed: file, s3, gs, abfs, memory"):
            listed(url)
    with pytest.raises(ValidationError, match="schemes that are allowed: s3"):
        listed(tmp_path, schemes=["s3"])
    feature = {"modality": "text", "tokenizer": {"kind": "text", "checkpoint": "x"}, "encoder": {"kind": "raw"}}
    raw = {"output": {"path": "y"}, "features": {"f": {**feature, "emit": ["token_ids"]}}}
    with pytest.raises(ConfigError, match=r"source\.path: found 'http://x/y'; schemes that are allowed: file"):
        configs.parse({**raw, "source": {"kind": "files", "path": "http://x/y"}})


@pytest.mark.usefixtures("hasty")
def test_a_listing_that_stutters(tmp_path: Path) -> None:
    for name in ("a.txt", "b/c.txt", "b/d/e.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    faulty.plan(tmp_path, {"*": [faulty.Fault("list", "slow_down", times=3), faulty.Fault("info", "reset", times=1)]})
    assert set(listed(f"faulty://{tmp_path}", schemes=["faulty"])) == {"a.txt", "b/c.txt", "b/d/e.txt"}
    faulty.plan(tmp_path, {"b": faulty.Fault("list", "denied")})
    with pytest.raises(ConfigError, match=r"source\.path: cannot list '/.*/b' \(PermissionError"):
        listed(f"faulty://{tmp_path}", schemes=["faulty"])


def test_every_file_of_the_real_media_is_listed_once(data: Path) -> None:
    found = listed(data)
    names = [
        str(path.relative_to(data))
        for path in data.rglob("*")
        if path.is_file() and not path.name.startswith(("manifest.", "README")) and "_ATTRIBUTION" not in path.name
    ]
    assert sorted(uri for row in found.values() for uri in uris(row).values()) == sorted(f"{data}/{n}" for n in names)


def test_memory() -> None:
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]
    for name in ("a.jpg", "a.txt", "sub/b.wav"):
        fs.pipe_file(f"/corpus/{name}", name.encode())
    before = listed("memory://corpus")
    assert set(before) == {"a", "sub/b.wav"}
    assert storage.Blob(before["sub/b.wav"]["audio_uri"]).read() == b"sub/b.wav"
    assert set(listed("memory://corpus/*/*.wav")) == {"sub/b.wav"}
    fs.pipe_file("/corpus/a.txt", b"other")
    after = listed("memory://corpus")
    assert after["a"] != before["a"]
    assert after["sub/b.wav"] == before["sub/b.wav"]


def test_s3(s3: Any) -> None:
    for name in ("in/a.jpg", "in/a.txt", "in/sub/b::c 100%.wav", "in/manifest.csv", "elsewhere/x.txt"):
        s3.pipe_file(f"corpus/{name}", name.encode())
    s3.call_s3("put_object", Bucket="corpus", Key="in/marker/", Body=b"")
    s3.call_s3("put_object", Bucket="corpus", Key="nameless//deep/x.txt", Body=b"in a folder without a name")
    assert set(listed("s3://corpus/nameless")) == {"/deep/x.txt"}
    assert storage.Blob("s3://corpus/nameless//deep/x.txt").read() == b"in a folder without a name"
    s3.rm("corpus/nameless", recursive=True)
    before = listed("s3://corpus/in")
    assert {name: uris(row) for name, row in before.items()} == {
        "a": {"text": "s3://corpus/in/a.txt", "image": "s3://corpus/in/a.jpg"},
        "sub/b::c 100%.wav": {"audio": "s3://corpus/in/sub/b::c 100%.wav"},
    }
    assert storage.Blob(before["sub/b::c 100%.wav"]["audio_uri"]).read() == b"in/sub/b::c 100%.wav"
    assert set(listed("s3://corpus/*/*.txt")) == {"in/a.txt", "elsewhere/x.txt"}
    assert set(listed("s3://corpus/{in,elsewhere}")) == {"in/a", "in/sub/b::c 100%.wav", "elsewhere/x.txt"}

    etag = hashlib.md5(b"in/sub/b::c 100%.wav").hexdigest()
    expected = f'[[["audio","sub/b::c 100%.wav","{etag}"]],null,[]]'
    assert before["sub/b::c 100%.wav"]["source_version"] == hashlib.sha256(expected.encode()).hexdigest()
    s3.pipe_file("corpus/in/a.txt", b"in/a.txt")
    assert listed("s3://corpus/in") == before
    s3.pipe_file("corpus/in/a.txt", b"changed")
    assert listed("s3://corpus/in")["a"]["source_version"] != before["a"]["source_version"]
    for path in ("s3://nosuchbucket/in", "s3://corpus/nosuchfolder", "s3://nosuchbucket/*.jpg"):
        with pytest.raises(ConfigError, match=r"source\.path: .*(does not exist|cannot)"):
            listed(path)
