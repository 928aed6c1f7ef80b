"""Links: which are followed, which are refused, and that a listing ends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.core.errors import ConfigError
from pipeline.sources.files import Config, FilesSource
from tests.sources.listing import listed, make


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


@pytest.mark.slow
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


def test_links_that_lead_in_a_circle_end(tmp_path: Path) -> None:
    make(tmp_path, "a/1.txt", "b/2.txt")
    (tmp_path / "a" / "to_b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "to_a").symlink_to(tmp_path / "a")
    assert set(listed(tmp_path)) == {"a/1.txt", "b/2.txt", "a/to_b/2.txt", "b/to_a/1.txt"}
