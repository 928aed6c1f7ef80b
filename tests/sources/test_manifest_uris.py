"""URIs of a manifest: what they may name, what is refused, and that no secret is repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import pytest
from pydantic import ValidationError

from pipeline.core.errors import ConfigError
from pipeline.sources.manifest import Config, ManifestSource
from tests.sources.manifests import listed, source, write


def test_urls_with_secrets_are_refused_and_not_repeated(tmp_path: Path) -> None:
    path = write(tmp_path, "csv", [{"pic": "s3://AKIAX:hunter2@bucket/1.jpg"}])
    words = r"source\.columns\.image: .*row 1 of 'm.csv' has a URL with a password or a signature in column 'pic'"
    with pytest.raises(ConfigError, match=words) as caught:
        listed(path, {"image": "pic"})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "options", "words"),
    [
        ({"image": "pic", "id": "key"}, {}, "has an id that is a URL with a password or a signature"),
        ({"image": "pic"}, {"passthrough": ["key"]}, "has a URL with a password or a signature in column 'key'"),
        (
            {"image": "key"},
            {"root": "https://h/a/", "schemes": ["https"]},
            "has a URL with a password or a signature in column 'key'",
        ),
    ],
)
def test_nor_do_ids_and_copied_columns_hold_one(
    tmp_path: Path, columns: dict[str, str], options: dict[str, Any], words: str
) -> None:
    secret = "b.jpg?token=hunter2" if "root" in options else "https://host/b.jpg?token=hunter2"
    path = write(tmp_path, "csv", [{"pic": "1.jpg", "key": "a"}, {"pic": "2.jpg", "key": secret}])
    found = listed(path, columns, **options)
    assert len(found) == 2
    assert found["m.csv#row 2"]["refused"] == f"row 2 of 'm.csv' {words}"
    assert "hunter2" not in str(found)
    path = write(tmp_path, "csv", [{"pic": "2.jpg", "key": secret}])
    with pytest.raises(ConfigError, match=f"none of 1 rows names a sample: row 1 of 'm.csv' {words}") as caught:
        listed(path, columns, **options)
    assert "hunter2" not in str(caught.value)


def test_words_about_a_url_are_copied(tmp_path: Path) -> None:
    rows = [{"pic": "1.jpg", "words": "see https://host/b.jpg?token=abc"}]
    found = listed(write(tmp_path, "csv", rows), {"image": "pic"}, passthrough=["words"])
    assert found["1.jpg"]["words"] == rows[0]["words"]


def test_root(tmp_path: Path) -> None:
    rows = [{"pic": "sub/1.jpg"}]
    path = write(tmp_path, "csv", rows)
    assert listed(path, {"image": "pic"}, root="/media")["sub/1.jpg"]["image_uri"] == "/media/sub/1.jpg"
    assert listed(path, {"image": "pic"}, root="s3://b/x/")["sub/1.jpg"]["image_uri"] == "s3://b/x/sub/1.jpg"
    with pytest.raises(ConfigError, match="schemes that are allowed: s3"):
        listed(path, {"image": "pic"}, schemes=["s3"])
    with pytest.raises(ConfigError, match=r"source\.columns\.image: .*row 1 of 'm.csv' has 'sub/1.jpg' in column"):
        listed(path, {"image": "pic"}, root="http://example.org/x")


@pytest.mark.parametrize(
    "value",
    [
        "http://example.org/a.jpg",
        "HTTPS://example.org/a.jpg",
        "data:image/png;base64,AAAA",
        "file://host/a.jpg",
        "bytes:///etc/passwd",
    ],
)
def test_uris_that_are_not_allowed(tmp_path: Path, value: str) -> None:
    path = write(tmp_path, "csv", [{"pic": "ok.jpg"}, {"pic": value}])
    found = listed(path, {"image": "pic"})
    assert set(found) == {"ok.jpg", "m.csv#row 2"}
    assert found["m.csv#row 2"]["refused"].startswith(f"row 2 of 'm.csv' has {value!r} in column 'pic'; ")
    assert found["m.csv#row 2"]["image_uri"] is None


@pytest.mark.parametrize(
    "value",
    [
        "../up.jpg",
        "a/../../up.jpg",
        "..",
        "/etc/passwd",
        "file:///etc/passwd",
        "//etc/passwd",
        "{root}/../up.jpg",
        "{root}x/a.jpg",
        "/proc/self/environ",
        "s3://bucket/a.jpg",
        "memory://a.jpg",
    ],
)
def test_files_outside_of_the_root_are_refused_by_their_text(tmp_path: Path, value: str) -> None:
    value = value.format(root=tmp_path)
    path = write(tmp_path, "csv", [{"pic": "ok.jpg"}, {"pic": value}])
    found = listed(path, {"image": "pic"}, version="stat")
    assert [row["forbidden"] for row in found.values() if row["image_uri"] == f"{tmp_path}/ok.jpg"] == [None]
    assert [row["forbidden"] for row in found.values() if row["image_uri"] != f"{tmp_path}/ok.jpg"] == [True]


def test_roots_allow_more(tmp_path: Path) -> None:
    names = ["ok.jpg", "/media/a/b.jpg", "/media/c.jpg", "S3://Bucket/x/y.jpg", "s3://Bucket/z.jpg", "s3://bucket/x/y"]
    path = write(tmp_path, "csv", [{"pic": name} for name in names])
    roots = ["file:///media/a/", "s3://Bucket/x"]
    found = listed(path, {"image": "pic"}, roots=roots)
    assert [name for name, row in found.items() if row["forbidden"]] == ["/media/c.jpg", names[4], names[5]]
    plain = ManifestSource(Config(path=str(path), columns={"image": "pic"}, roots=roots)).allowed_roots().plain()  # type: ignore[arg-type]
    assert plain == tuple(sorted([str(tmp_path), "/media/a", "s3://Bucket/x"]))
    for bad in ("http://example.org/x", ""):
        with pytest.raises(ValidationError, match="folders and prefixes of file, s3"):
            Config(path=str(path), columns={"image": "pic"}, roots=[bad])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"source\.roots: '/proc/1' is a folder of the kernel"):
        source(path, {"image": "pic"}, roots=["/proc/1"])


def test_a_manifest_of_which_every_row_is_elsewhere_ends_with_the_line_to_add(tmp_path: Path) -> None:
    path = write(tmp_path, "csv", [{"pic": "/media/disk/a/1.jpg"}, {"pic": "/media/disk/b/2.jpg"}])
    with pytest.raises(ConfigError, match=r"source\.roots: all 2 rows .*: roots: \['/media/disk'\]"):
        listed(path, {"image": "pic"})
    assert len(listed(path, {"image": "pic"}, roots=["/media/disk"])) == 2
    path = write(tmp_path, "csv", [{"pic": "/media/a/1.jpg"}, {"pic": "s3://bucket/b/2.jpg"}])
    with pytest.raises(ConfigError, match=r"roots: \['FOLDER'\]"):
        listed(path, {"image": "pic"})


def test_a_name_cannot_chain_to_another_scheme(tmp_path: Path) -> None:
    from pipeline import storage
    from pipeline.core.errors import SampleError

    path = write(tmp_path, "csv", [{"pic": "simplecache::memory://secret/x.jpg"}, {"pic": "y.jpg"}])
    fsspec.filesystem("memory").pipe_file("/secret/x.jpg", b"secret")
    row, _ = listed(path, {"image": "pic"}).values()
    with pytest.raises(SampleError, match="missing"):
        storage.Blob(row["image_uri"]).read()


def test_file_urls_are_plain_paths(tmp_path: Path) -> None:
    path = write(tmp_path, "csv", [{"pic": f"file://{tmp_path}/x.jpg"}])
    assert listed(path, {"image": "pic"})["x.jpg"]["image_uri"] == f"{tmp_path}/x.jpg"
    with pytest.raises(
        ConfigError, match=r"row 1 of 'm.csv' has '/abs\.jpg' in column 'pic'; schemes that are allowed: s3"
    ):
        listed(write(tmp_path, "csv", [{"pic": "/abs.jpg"}]), {"image": "pic"}, schemes=["s3"])
