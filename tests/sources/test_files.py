"""A folder becomes samples: ids, groups, files left out, versions; on a disk, in memory, on S3."""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import os
import random
import socket
import time
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from pydantic import ValidationError

from pipeline import config as configs
from pipeline import storage
from pipeline.core.errors import ConfigError, NotAllowed, SampleError
from pipeline.core.schema import LISTING, ROLES
from pipeline.sources import files as module
from pipeline.sources._files.patterns import MAGIC, Patterns, expand
from pipeline.sources.files import Config, FilesSource
from pipeline.storage import local_files, retry
from tests.support import faulty


def listed(path: Path | str, **options: Any) -> dict[str, dict[str, str]]:
    """Returns sample_id -> the values of its row that are not null."""
    source = FilesSource(Config(path=str(path), **options))
    source.check("source")
    tables = list(source.list())
    for table in tables:
        assert table.schema.equals(LISTING)
        ids = table["sample_id"].to_pylist()
        assert ids == sorted(ids)
    rows = pa.concat_tables(tables).to_pylist()
    found = {row["sample_id"]: {k: v for k, v in row.items() if v is not None} for row in rows}
    assert len(found) == len(rows)
    return found


def uris(row: dict[str, str]) -> dict[str, str]:
    return {role: row[f"{role}_uri"] for role in ROLES if f"{role}_uri" in row}


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return root


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


def test_a_digest_that_cannot_be_had_is_not_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a.txt")
    monkeypatch.setattr(retry, "BASE_S", 0.01)
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


def test_globs(tmp_path: Path) -> None:
    make(tmp_path, "images/a.jpg", "images/deep/b.png", "videos/c.mp4", "audio/d.wav", "top.txt")
    assert set(listed(f"{tmp_path}/{{images,videos}}/**")) == {"images/a.jpg", "images/deep/b.png", "videos/c.mp4"}
    assert set(listed(f"{tmp_path}/{{images,videos}}")) == {"images/a.jpg", "images/deep/b.png", "videos/c.mp4"}
    assert set(listed(f"{tmp_path}/images/*")) == {"a.jpg"}
    assert set(listed(f"{tmp_path}/**/*.{{png,w?v}}")) == {"images/deep/b.png", "audio/d.wav"}
    assert set(listed(f"{tmp_path}/top.txt")) == {"top.txt"}
    make(tmp_path, "odd[1]{a,b}/x.txt", "odd[1]{a,b}/y*.txt")
    assert set(listed(f"{tmp_path}/odd[1]{{a,b}}")) == {"x.txt", "y*.txt"}
    assert set(listed(f"{tmp_path}/odd[1]{{a,b}}/y*.txt")) == {"y*.txt"}


@pytest.mark.parametrize(
    ("glob", "yes", "no"),
    [
        ("**/x", ["x", "a/x", "a/b/x"], ["ax", "xy"]),
        ("a/**", ["a/b", "a/b/c"], ["a", "b/a/c"]),
        ("a/**/z.*", ["a/z.t", "a/b/c/z.t"], ["z.t", "a/bz.t"]),
        ("*.jpg", ["a.jpg", ".jpg", "new\nline.jpg"], ["a/b.jpg", "a.jpgx"]),
        ("[ab]?.t", ["a1.t", "bb.t"], ["c1.t", "a.t", "a/.t"]),
        ("[!ab].t", ["c.t"], ["a.t", "/.t"]),
        ("[]x].t", ["].t", "x.t"], ["y.t"]),
        ("[^a].t", ["^.t", "a.t"], ["b.t"]),
        ("{a,b{1,2}}.t", ["a.t", "b1.t", "b2.t"], ["b.t", "{a.t"]),
        ("{a}.t", ["{a}.t"], ["a.t"]),
        ("a+(b).t", ["a+(b).t"], ["aab.t"]),
    ],
)
def test_what_a_glob_matches(glob: str, yes: list[str], no: list[str]) -> None:
    patterns = Patterns([glob])
    assert [path for path in yes if not patterns.match(path)] == []
    assert [path for path in no if patterns.match(path)] == []
    for path in yes:
        folders = path.split("/")[:-1]
        assert all(patterns.may_reach("/".join(folders[: i + 1])) for i in range(len(folders)))


def test_names_match_as_in_a_shell() -> None:
    """Compared with the standard library, over short names of few letters."""
    chance = random.Random(4)
    for _ in range(3000):
        glob = "".join(
            chance.choice(["*", "*", "?", "a", "b", "[ab]", "[!a]", "ab"]) for _ in range(chance.randrange(7))
        )
        name = "".join(chance.choice("abc") for _ in range(chance.randrange(1, 8)))
        if glob and glob != "**" and MAGIC.search(glob):
            assert Patterns([glob]).match(name) == fnmatch.fnmatchcase(name, glob), (glob, name)


def test_a_glob_takes_no_time_without_end() -> None:
    started = time.process_time()
    assert not Patterns(["*a" * 40 + "*b"]).match("a" * 250)
    with pytest.raises(NotAllowed, match="at most 1000 alternatives"):
        Patterns(["{a,b}" * 30])
    with pytest.raises(NotAllowed, match=r"many \*\*"):
        Patterns(["**/a/" * 9])
    assert time.process_time() - started < 2.0


def test_braces_expand_as_in_a_shell() -> None:
    assert expand("{a,b}/{c,d{e,f}}") == [
        "a/c",
        "a/de",
        "a/df",
        "b/c",
        "b/de",
        "b/df",
    ]
    assert expand("{x}{a,b}{") == ["{x}a{", "{x}b{"]


def test_a_glob_that_cannot_be_read(tmp_path: Path) -> None:
    make(tmp_path, "a.txt")
    with pytest.raises(ValidationError, match="cannot be read"):
        Config(path="x", exclude=("[z-a]",))
    with pytest.raises(ConfigError, match=r"source\.path: .*cannot be read"):
        listed(f"{tmp_path}/[z-a]*")


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


def test_links_that_leave_the_folder_are_not_followed(tmp_path: Path) -> None:
    outside = make(tmp_path / "outside", "secret.txt", "deep/more.txt")
    root = make(tmp_path / "root", "a.txt", "folder/b.txt")
    (root / "inside.txt").symlink_to(root / "a.txt")
    (root / "out.txt").symlink_to(outside / "secret.txt")
    (root / "outfolder").symlink_to(outside)
    (root / "folder" / "up").symlink_to(root)
    (root / "dangling.txt").symlink_to(root / "gone.txt")
    (root / "itself.txt").symlink_to(root / "itself.txt")
    os.mkfifo(root / "pipe.txt")
    inside = {"a.txt", "folder/b.txt", "inside.txt", "dangling.txt", "itself.txt"}
    found = listed(root)
    assert {name for name, row in found.items() if not row.get("forbidden")} == inside
    assert {name for name, row in found.items() if row.get("forbidden")} == {"out.txt", "outfolder"}
    assert set(listed(root, exclude=["out*"])) == inside
    assert set(listed(root, follow_symlinks=True)) == inside | {
        "out.txt",
        "outfolder/secret.txt",
        "outfolder/deep/more.txt",
    }


def test_links_to_folders_of_links_make_no_ways_without_end(tmp_path: Path) -> None:
    """Two links per folder, thirty folders deep: 2^30 paths to one file."""
    for i in range(30):
        (tmp_path / f"d{i}").mkdir()
        for name in ("a", "b"):
            (tmp_path / f"d{i}" / name).symlink_to(tmp_path / f"d{i + 1}")
    make(tmp_path / "d30", "a.txt")
    with pytest.raises(ConfigError, match=r"source\.path: links lead to 31 folders in over 11984 ways; exclude"):
        listed(tmp_path)
    assert len(listed(tmp_path, exclude=["**/a", "d[0-9]/b"])) > 1


def test_many_links_to_one_folder_are_listed(tmp_path: Path) -> None:
    make(tmp_path, "videos/a.txt", *(f"f{i}/b.txt" for i in range(200)))
    for i in range(200):
        (tmp_path / f"f{i}" / "v").symlink_to("../videos")
    assert len(listed(tmp_path)) == 1 + 200 + 200


def test_a_refused_link_changes_no_other_sample(tmp_path: Path) -> None:
    """Otherwise its stored rows would belong to a sample that is no longer listed."""
    outside = make(tmp_path / "outside", "x.srt", "folder/y.txt")
    root = make(tmp_path / "root", "x.mp4", "z.mp4", "z.txt", "w.mp4", "w.txt")
    before = listed(root)
    (root / "x.srt").symlink_to(outside / "x.srt")
    (root / "z").symlink_to(outside / "folder")
    (root / "w").symlink_to(outside / "x.srt")
    found = listed(root)
    assert {name: found[name] for name in before} == before
    assert {*found} - {*before} == {"x.srt"}
    source = FilesSource(Config(path=str(root)))
    assert sum(map(len, source.list())) == 4
    assert source.refused_folders == ["z/"]


def test_a_folder_of_nothing_but_links_out_of_it_says_what_to_set(tmp_path: Path) -> None:
    outside = make(tmp_path / "outside", "a.txt", "b.txt")
    (tmp_path / "root").mkdir()
    for name in ("a.txt", "b.txt"):
        (tmp_path / "root" / name).symlink_to(outside / name)
    with pytest.raises(ConfigError, match=r"source\.follow_symlinks: all 2 samples .* follow_symlinks: true"):
        listed(tmp_path / "root")
    assert set(listed(tmp_path / "root", follow_symlinks=True)) == {"a.txt", "b.txt"}


def test_folders_of_the_kernel_are_no_corpus() -> None:
    with pytest.raises(ConfigError, match=r"source\.path: '/proc/self' is a folder of the kernel"):
        listed("/proc/self", follow_symlinks=True)


def test_a_digest_is_not_taken_of_what_a_link_leads_out_to(tmp_path: Path) -> None:
    outside = make(tmp_path / "outside", "secret.txt")
    root = make(tmp_path / "root", "a.txt")
    (root / "out.txt").symlink_to(outside / "secret.txt")
    before = listed(root, version="sha256")["out.txt"]
    (outside / "secret.txt").write_text("another secret")
    assert listed(root, version="sha256")["out.txt"] == before


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


def test_links_that_lead_in_a_circle_end(tmp_path: Path) -> None:
    make(tmp_path, "a/1.txt", "b/2.txt")
    (tmp_path / "a" / "to_b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "to_a").symlink_to(tmp_path / "a")
    assert set(listed(tmp_path)) == {"a/1.txt", "b/2.txt", "a/to_b/2.txt", "b/to_a/1.txt"}


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
    with pytest.raises(ConfigError, match=r"source\.path: no file in"):
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


# -- what is left out -----------------------------------------------------------------------------

KEYS = {
    "ok.txt": b"x",
    "a//named.txt": b"x",
    "./a.txt": b"x",
    "a/./b.txt": b"x",
    "a/../c.txt": b"x",
    "../d.txt": b"x",
    "x/./y/../z.txt": b"x",
    "folder/": b"",
    "bytes/": b"x",
    "q//": b"x",
    ".hidden.txt": b"x",
    "a/.hidden/e.txt": b"x",
    "README.md": b"x",
}
DOT, UP, EMPTY = "with '.' in their path", "with '..' in their path", "with an empty name in their path"
SLASH = "with '/' at the end of their name"
HIDDEN = "whose name, or their folder's, begins with a dot"
FOLDER = "empty, with '/' at the end of their name (folder markers)"


@pytest.mark.parametrize(
    ("options", "ids", "left_out"),
    [
        ({}, {"ok.txt", "a//named.txt"}, {DOT: 2, UP: 3, SLASH: 2, FOLDER: 1, HIDDEN: 2}),
        ({"include": ["**/*.txt"]}, {"ok.txt"}, {DOT: 2, UP: 3, EMPTY: 1, HIDDEN: 2}),
        ({"include": ["ok.txt", "a/*"]}, {"ok.txt"}, {DOT: 1, UP: 1, EMPTY: 1, HIDDEN: 1}),
        ({"include": ["ok.*"]}, {"ok.txt"}, {}),
        ({"path": "s3://corpus/in/ok.txt"}, {"ok.txt"}, {}),
        (
            {"exclude": []},
            {*KEYS} - {"folder/", "bytes/", "q//"},
            {SLASH: 2, FOLDER: 1},
        ),
    ],
)
def test_keys_that_cannot_be_samples_are_counted(
    s3: Any, options: dict[str, Any], ids: set[str], left_out: dict[str, int]
) -> None:
    """Every key is listed, counted, or excluded by a pattern."""
    import boto3

    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    for key, data in KEYS.items():  # s3fs would change some of the names
        client.put_object(Bucket="corpus", Key=f"in/{key}", Body=data)
    source = FilesSource(Config(**{"path": "s3://corpus/in", **options}))
    source.check("source")
    for _ in range(2):  # a listing counts its own files only
        assert {one for table in source.list() for one in table["sample_id"].to_pylist()} == ids
        assert source.left_out == left_out


def test_pipes_and_sockets_are_counted(tmp_path: Path) -> None:
    make(tmp_path, "a.txt", "sub/b.txt")
    for name in ("pipe.txt", "sub/pipe.bin", ".hidden"):
        os.mkfifo(tmp_path / name)
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(os.path.relpath(tmp_path / "socket"))
    source = FilesSource(Config(path=str(tmp_path)))
    assert sum(map(len, source.list())) == 2
    assert source.left_out == {"that are pipes, sockets or devices": 3, HIDDEN: 1}
    source = FilesSource(Config(path=str(tmp_path), include=("**/*.txt",)))
    assert sum(map(len, source.list())) == 2
    assert source.left_out == {"that are pipes, sockets or devices": 1}


def test_a_local_folder_with_dots_in_its_names_leaves_nothing_out(tmp_path: Path) -> None:
    make(tmp_path, "a..b/c.txt", "d./e.txt", "...f/g.txt")
    source = FilesSource(Config(path=str(tmp_path)))
    assert {one for table in source.list() for one in table["sample_id"].to_pylist()} == {"a..b/c.txt", "d./e.txt"}
    assert source.left_out == {HIDDEN: 1}, "the folder ...f"


@pytest.mark.parametrize("place", ["local", "s3"])
def test_hidden_files_are_counted(s3: Any, tmp_path: Path, place: str) -> None:
    """A hidden folder counts as one file. Files that the user excludes, or that no pattern includes, do not count."""
    make(tmp_path, "a.txt", ".b.txt", "sub/.c.png", ".git/d.txt", ".git/e.txt", "sub/f.txt")
    s3.put(f"{tmp_path}/", "corpus/hidden/", recursive=True)
    path = str(tmp_path) if place == "local" else "s3://corpus/hidden"
    for options, count in (({}, 3), ({"include": ["**/*.txt"]}, 2), ({"exclude": ["**/.*", "**/.*/**"]}, 0)):
        source = FilesSource(Config(path=path, **options))
        assert sum(map(len, source.list())) == 2
        assert source.left_out == ({HIDDEN: count} if count else {})
