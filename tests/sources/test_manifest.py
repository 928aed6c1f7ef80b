"""A table becomes samples: all formats alike, values unchanged, and each mistake reported with its place."""

from __future__ import annotations

import csv
import datetime
import gzip
import json
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from pipeline.core.errors import ConfigError
from pipeline.core.schema import LISTING
from pipeline.sources import manifest as module
from pipeline.sources._tables import csv_table
from pipeline.sources.manifest import Config, ManifestSource
from tests.support import faulty

ROWS: list[dict[str, Any]] = [
    {"key": "007", "pic": "b/1.jpg", "sound": None, "words": 'a "big", red\ncircle', "score": 1, "label": "x"},
    {"key": "NA", "pic": "/abs/2.png", "sound": "s.wav", "words": None, "score": None, "label": "null"},
    {"key": "ünï", "pic": None, "sound": "s3://bucket/a b.ogg", "words": "nan", "score": 3, "label": None},
]
COLUMNS = {"id": "key", "image": "pic", "audio": "sound", "inline_text": "words"}


def write(folder: Path, form: str, rows: list[dict[str, Any]] = ROWS) -> Path:
    path = folder / f"m.{form}"
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif form == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter="\t" if form == "tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def source(path: Path | str, columns: dict[str, str] = COLUMNS, **options: Any) -> ManifestSource:
    made = ManifestSource(Config(path=str(path), columns=columns, **options))  # type: ignore[arg-type]
    made.check("source")
    return made


def listed(path: Path | str, columns: dict[str, str] = COLUMNS, **options: Any) -> dict[str, dict[str, Any]]:
    made = source(path, columns, **options)
    table = pa.concat_tables(made.list())
    assert table.schema.equals(pa.schema([*LISTING, *made.passthrough()]))
    return {row["sample_id"]: row for row in table.to_pylist()}


@pytest.mark.parametrize("form", ["parquet", "csv", "tsv", "jsonl"])
def test_every_format_gives_the_same_samples(tmp_path: Path, form: str) -> None:
    found = listed(write(tmp_path, form), passthrough=["score", "label"])
    score = str if form in ("csv", "tsv") else int  # these have no types
    roles = ("text_uri", "image_uri", "video_uri", "audio_uri", "other_uri")
    nothing = dict.fromkeys((*roles, "inline_text", "forbidden", "refused"))
    for row in found.values():
        assert len(row.pop("source_version")) == 64
    assert found == {
        "007": {
            **nothing,
            "sample_id": "007",
            "image_uri": f"{tmp_path}/b/1.jpg",
            "inline_text": 'a "big", red\ncircle',
            "score": score(1),
            "label": "x",
        },
        "NA": {
            **nothing,
            "sample_id": "NA",
            "image_uri": "/abs/2.png",
            "audio_uri": f"{tmp_path}/s.wav",
            "score": None,
            "label": "null",
            "forbidden": True,
        },
        "ünï": {
            **nothing,
            "sample_id": "ünï",
            "audio_uri": "s3://bucket/a b.ogg",
            "inline_text": "nan",
            "score": score(3),
            "label": None,
            "forbidden": True,
        },
    }


def test_tables_are_bounded_and_ordered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"key": f"{i * 7 % 25:02}", "words": str(i)} for i in range(25)]
    monkeypatch.setattr(module, "LISTING_ROWS", 10)
    for form in ("parquet", "csv"):
        tables = list(source(write(tmp_path, form, rows), {"id": "key", "inline_text": "words"}).list())
        assert [len(table) for table in tables] == [10, 10, 5]
        for table in tables:
            ids = table["sample_id"].to_pylist()
            assert ids == sorted(ids)
        pairs = {(row["sample_id"], row["inline_text"]) for table in tables for row in table.to_pylist()}
        assert pairs == {(row["key"], row["words"]) for row in rows}


def test_passthrough_keeps_its_arrow_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "uri": ["b.jpg", "a.jpg"],
            "when": pa.array([datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC), None], pa.timestamp("us", "UTC")),
            "small": pa.array([1, None], pa.int8()),
            "tags": pa.array([["x", None], []], pa.list_(pa.string())),
            "box": pa.array([{"w": 1.5}, None], pa.struct([("w", pa.float32())])),
            "raw": pa.array([b"\x00\xff", None], pa.binary()),
            "kind": pa.array(["k", "k"]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "m.parquet")
    names = table.column_names[1:]
    made = source(tmp_path / "m.parquet", {"image": "uri"}, passthrough=names)
    expected = [*[table.schema.field(name).type for name in names[:-1]], pa.string()]
    assert made.passthrough().types == expected
    (found,) = made.list()
    assert found["sample_id"].to_pylist() == ["a.jpg", "b.jpg"]
    assert found.select(names).to_pylist() == table.select(names).to_pylist()[::-1]


def test_without_an_id_column_the_first_uri_is_the_id(tmp_path: Path) -> None:
    rows = [
        {"pic": f"{tmp_path}/in/1.jpg", "sound": None},
        {"pic": "/elsewhere/2.jpg", "sound": "x.wav"},
        {"pic": None, "sound": "./sub/../3.wav"},
        {"pic": "memory://corpus/4.jpg", "sound": None},
    ]
    found = listed(write(tmp_path, "jsonl", rows), {"image": "pic", "audio": "sound"})
    assert set(found) == {"in/1.jpg", "/elsewhere/2.jpg", "3.wav", "memory://corpus/4.jpg"}
    assert found["3.wav"]["audio_uri"] == f"{tmp_path}/3.wav"


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


@pytest.mark.parametrize(("form", "places"), [("parquet", ("row 1", "row 3")), ("jsonl", ("line 1", "line 4"))])
def test_an_id_that_is_listed_twice(tmp_path: Path, form: str, places: tuple[str, str], monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "LISTING_ROWS", 2)
    path = write(tmp_path, form, [{"k": "a", "p": "1"}, {"k": "b", "p": "2"}, {"k": "a", "p": "3"}])
    if form == "jsonl":
        path.write_text(path.read_text().replace("\n", "\n\n", 1))
    reported_error = str(source(path, {"id": "k", "image": "p"}).duplicate_id_error("a"))
    assert reported_error.startswith(f"source.columns.id: id 'a' is in {places[0]} and in {places[1]};")


@pytest.mark.parametrize("form", ["parquet", "csv", "tsv", "jsonl"])
def test_columns_that_are_missing(tmp_path: Path, form: str) -> None:
    path = write(tmp_path, form)
    with pytest.raises(
        ConfigError, match=r"source\.columns\.video: no column 'clip'.*one of: 'key', 'pic', 'sound', 'words'"
    ):
        source(path, {**COLUMNS, "video": "clip"})
    with pytest.raises(ConfigError, match=r"source\.passthrough: no column 'mood'"):
        source(path, passthrough=["mood"])


def test_columns_that_do_not_fit(tmp_path: Path) -> None:
    table = pa.table({"n": [1, 2], "p": ["a", "b"], "window": [1, 2], "image_uri": ["a", "b"]})
    pq.write_table(table, tmp_path / "m.parquet")
    assert set(listed(tmp_path / "m.parquet", {"id": "n", "image": "p"})) == {"1", "2"}
    with pytest.raises(ConfigError, match=r"source\.columns\.image: column 'n' holds int64"):
        source(tmp_path / "m.parquet", {"image": "n"})
    for name in ("window", "image_uri"):
        with pytest.raises(ConfigError, match=rf"source\.passthrough: column '{name}' is the dataset's own"):
            source(tmp_path / "m.parquet", {"image": "p"}, passthrough=[name])
    with pytest.raises(ConfigError, match=r"source\.passthrough: names 'n' twice; each column once"):
        source(tmp_path / "m.parquet", {"image": "p"}, passthrough=["n", "n"])
    (tmp_path / "twice.csv").write_text("p,p\na,b\n")
    with pytest.raises(ConfigError, match=r"source\.columns\.image: two columns have the name 'p'"):
        source(tmp_path / "twice.csv", {"image": "p"})
    with pytest.raises(ValidationError, match="names no column of media; one of"):
        Config(path="m.csv", columns={"inline_text": "t"})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "content", "reported_error"),
    [
        ("m.jsonl", b"[" * 100_000, r"no line of .* is an object of JSON, of 1; line 1 is not JSON"),
        ("m.jsonl", b'[\n{"p": "a"},\n{"p": "b"},\n]\n', r"no line of .* of 4; line 1 is not JSON"),
        ("m.jsonl", b'{"p": "a"}\n{"p": 1}\n', r"column 'p' of .*has no one type: line 2 holds an integer"),
        ("m.csv", b"", r"as csv .*Empty CSV"),
        ("m.csv", b'p,q\na,b\n"c,d\ne,f\n', r"row 2 of .* opens a quote that nothing closes"),
        ("m.csv", b"p,q\na,b\n\xff\n", r"as csv .*Row #3: Expected 2 columns, got 1"),
        ("m.csv", b"p,\xff\n1,2\n", r"as csv"),
        ("m.csv.gz", b"not gzip", r"as csv"),
        ("m.parquet", b"PAR1nothing", r"as parquet"),
        ("m.xlsx", b"", r"names no format; one of .*source\.format"),
    ],
)
def test_manifests_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, reported_error: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=rf"source\.path: .*{reported_error}"):
        source(tmp_path / name, {"image": "p"})


def test_a_manifest_that_is_not_there_or_empty(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"source\.path: .*does not exist"):
        source(tmp_path / "m.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ConfigError, match=r"source\.path: the folder .* holds no Parquet file"):
        source(tmp_path / "folder.csv")
    (tmp_path / "m.csv").write_text("p\n")
    with pytest.raises(ConfigError, match=r"source\.path: no row"):
        listed(tmp_path / "m.csv", {"image": "p"})


def test_parquet_that_breaks_off(tmp_path: Path) -> None:
    table = pa.table({"p": [f"{i}.jpg" for i in range(5000)]})
    pq.write_table(table, tmp_path / "m.parquet", row_group_size=1000, compression="zstd", use_dictionary=False)
    data = bytearray((tmp_path / "m.parquet").read_bytes())
    start = pq.read_metadata(tmp_path / "m.parquet").row_group(3).column(0).data_page_offset
    data[start : start + 400] = b"\xff" * 400
    (tmp_path / "m.parquet").write_bytes(data)
    with pytest.raises(ConfigError, match=r"source\.path: .*breaks off after row \d+"):
        listed(tmp_path / "m.parquet", {"image": "p"})


def test_compressed_and_with_a_byte_order_mark(tmp_path: Path) -> None:
    text = "\ufeffp,q\na.jpg,1\n"
    (tmp_path / "m.csv.gz").write_bytes(gzip.compress(text.encode()))
    assert set(listed(tmp_path / "m.csv.gz", {"image": "p"})) == {"a.jpg"}
    (tmp_path / "n.txt").write_text('\ufeff{"p": "a.jpg"}')
    assert set(listed(tmp_path / "n.txt", {"image": "p"}, format="jsonl")) == {"a.jpg"}


def test_csv_values_may_hold_line_ends_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_table, "_CSV_BLOCK_BYTES", 100)
    rows = [{"key": str(i), "words": "one\ntwo, three\n" * (i % 4)} for i in range(50)]
    found = listed(write(tmp_path, "csv", rows), {"id": "key", "inline_text": "words"})
    assert {key: row["inline_text"] for key, row in found.items()} == {r["key"]: r["words"] or None for r in rows}


def test_the_version_tells_a_changed_row(tmp_path: Path) -> None:
    def versions(**options: Any) -> dict[str, str]:
        found = listed(write(tmp_path, "jsonl", rows), passthrough=["score"], **options)
        return {key: row["source_version"] for key, row in found.items()}

    rows = [dict(row) for row in ROWS]
    before = versions()
    assert versions() == before
    rows[0]["score"], rows[1]["words"], rows[2]["label"] = 2, "new", "not read"
    after = versions()
    assert [before[key] == after[key] for key in ("007", "NA", "ünï")] == [False, False, True]

    (tmp_path / "s.wav").write_bytes(b"1")
    assert versions() == after
    rows[2]["sound"] = "gone.wav"
    seen = versions(version="stat", roots=["/abs"])
    (tmp_path / "s.wav").write_bytes(b"22")
    changed = versions(version="stat", roots=["/abs"])
    assert [seen[key] == changed[key] for key in ("007", "NA")] == [True, False]
    rows[2]["sound"] = "nosuchscheme://x.wav"
    with pytest.raises(ConfigError, match=r"source\.columns\.audio: cannot reach 'nosuchscheme://x\.wav'"):
        versions(version="stat", schemes=["file", "nosuchscheme"], roots=["nosuchscheme://"])


def test_real_manifests(data: Path) -> None:
    for name, role in (("images", "image"), ("videos", "video"), ("audio", "audio"), ("text", "text")):
        with (data / name / "manifest.csv").open(newline="") as file:
            expected = list(csv.DictReader(file))
        found = listed(data / name / "manifest.csv", {role: "path"}, passthrough=["label", "bytes", "sha256"])
        assert set(found) == {row["path"] for row in expected}
        for row in expected:
            one = found[row["path"]]
            assert one[f"{role}_uri"] == str(data / name / row["path"])
            assert [one[name] or "" for name in ("label", "bytes", "sha256")] == [
                row[n] for n in ("label", "bytes", "sha256")
            ]


def test_memory_and_s3(s3: Any) -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/top.csv", b"p\na.jpg\n")
    assert listed("memory://top.csv", {"image": "p"})["a.jpg"]["image_uri"] == "memory://a.jpg"
    s3.pipe_file("corpus/sub/m.jsonl", b'{"p": "a.jpg"}\n{"p": "s3://corpus/b.jpg"}\n{"p": "gone.jpg"}\n')
    s3.pipe_file("corpus/sub/a.jpg", b"1")
    s3.pipe_file("corpus/b.jpg", b"2")
    before = listed("s3://corpus/sub/m.jsonl", {"image": "p"}, version="stat")
    assert {key: row["image_uri"] for key, row in before.items()} == {
        "a.jpg": "s3://corpus/sub/a.jpg",
        "s3://corpus/b.jpg": "s3://corpus/b.jpg",
        "gone.jpg": "s3://corpus/sub/gone.jpg",
    }
    s3.pipe_file("corpus/sub/a.jpg", b"3")
    after = listed("s3://corpus/sub/m.jsonl", {"image": "p"}, version="stat")
    assert {key for key in before if before[key] != after[key]} == {"a.jpg"}
    assert [key for key, row in before.items() if row["forbidden"]] == ["s3://corpus/b.jpg"]
    s3.pipe_file("corpus/sub/m.jsonl", b'{"p": "../b.jpg"}\n{"p": "a.jpg"}\n')
    outside = [row["forbidden"] for row in listed("s3://corpus/sub/m.jsonl", {"image": "p"}).values()]
    assert sorted(outside, key=bool) == [None, True]


def test_a_parquet_of_many_row_groups_keeps_structs_beside_dictionaries(tmp_path: Path) -> None:
    kinds = pa.array([f"c{i % 3}" for i in range(137)])
    table = pa.table(
        {
            "id": [str(i) for i in range(137)],
            "t": ["words"] * 137,
            "m": pa.array([{"x": i, "y": None} for i in range(137)]),
            "kind": kinds.dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "m.parquet", row_group_size=20)
    made = source(tmp_path / "m.parquet", {"id": "id", "inline_text": "t"}, passthrough=["m", "kind"])
    found = {row["sample_id"]: row for one in made.list() for row in one.to_pylist()}
    assert [found[str(i)]["m"]["x"] for i in range(137)] == list(range(137))
    assert [found[str(i)]["kind"] for i in range(137)] == kinds.to_pylist()


def test_values_of_a_csv_are_copied_as_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("id,t,zip,n\n001,hello,01234,1e3\n002,NA,00501,\n")
    made = source(tmp_path / "m.csv", {"id": "id", "inline_text": "t"}, passthrough=["zip", "n"])
    (found,) = [table.select(["zip", "n"]).to_pylist() for table in made.list()]
    assert found == [{"zip": "01234", "n": "1e3"}, {"zip": "00501", "n": None}]


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
def test_a_manifest_and_its_files_on_a_place_that_stutters(tmp_path: Path, form: str) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x" * 10)
    table = write(tmp_path, form, [{"pic": f"faulty://{tmp_path}/a.jpg"}])
    url, options = f"faulty://{table}", {"schemes": ["faulty"], "version": "stat"}
    ops = [faulty.Fault(op, "slow_down", times=1) for op in ("info", "open", "read")]
    faulty.plan(tmp_path, {"*": [*ops, faulty.Fault("read", "short", times=1, after=9)]})
    assert [row["image_uri"] for row in listed(url, {"image": "pic"}, **options).values()] == [
        f"faulty://{tmp_path}/a.jpg"
    ]
    faulty.plan(tmp_path, {"a.jpg": faulty.Fault("info", "timeout")})
    with pytest.raises(ConfigError, match=r"source\.columns\.image: cannot reach .*a\.jpg"):
        listed(url, {"image": "pic"}, **options)
    faulty.plan(tmp_path, {table.name: faulty.Fault("read", "short", after=9)})
    with pytest.raises(ConfigError, match=r"source\.path: .*truncated read"):
        listed(url, {"image": "pic"}, **options)


# -- views ----------------------------------------------------------------------------------------

LONG = "more than the twelve bytes that a view holds by itself"
VIEWS: list[tuple[Any, Any, list[Any]]] = [
    (pa.string_view(), pa.string(), ["x", None, LONG]),
    (pa.binary_view(), pa.binary(), [b"\x00\xff", None, LONG.encode()]),
    (pa.list_(pa.string_view()), pa.list_(pa.string()), [["x", None], None, [LONG]]),
    (pa.large_list(pa.string_view()), pa.large_list(pa.string()), [["x"], None, []]),
    (pa.list_(pa.binary_view(), 2), pa.list_(pa.binary(), 2), [[b"x", None], None, [b"", b"y"]]),
    (
        pa.struct([("a", pa.string_view()), ("n", pa.int8())]),
        pa.struct([("a", pa.string()), ("n", pa.int8())]),
        [{"a": "x", "n": 1}, None, {"a": None, "n": None}],
    ),
    (
        pa.list_(pa.struct([("a", pa.list_(pa.string_view()))])),
        pa.list_(pa.struct([("a", pa.list_(pa.string()))])),
        [[{"a": ["x"]}], None, []],
    ),
    (pa.map_(pa.string_view(), pa.string_view()), pa.map_(pa.string(), pa.string()), [[("k", "v")], None, []]),
]


@pytest.mark.parametrize(("kind", "stored", "values"), VIEWS, ids=lambda one: str(one)[:30])
def test_views_are_copied_as_what_they_show(tmp_path: Path, kind: Any, stored: Any, values: list[Any]) -> None:
    table = pa.table({"id": ["c", "b", "a"], "pic": ["1", "2", "3"], "v": pa.array(values, kind)})
    pq.write_table(table, tmp_path / "m.parquet")
    assert pq.read_schema(tmp_path / "m.parquet").field("v").type == kind
    made = source(tmp_path / "m.parquet", {"id": "id", "image": "pic"}, passthrough=["v"])
    assert made.passthrough().field("v").type == stored
    (found,) = made.list()
    assert found["v"].type == stored
    assert found["v"].to_pylist() == values[::-1]
    pq.write_table(found.select(["v"]), tmp_path / "shard.parquet")
    assert pq.read_table(tmp_path / "shard.parquet")["v"].to_pylist() == values[::-1]


def test_ids_files_and_texts_may_be_views(tmp_path: Path) -> None:
    table = pa.table({name: pa.array([f"{name} {LONG}"], pa.string_view()) for name in ("id", "pic", "words")})
    pq.write_table(table, tmp_path / "m.parquet")
    (found,) = listed(tmp_path / "m.parquet", {"id": "id", "image": "pic", "inline_text": "words"}).values()
    assert (found["sample_id"], found["inline_text"]) == (f"id {LONG}", f"words {LONG}")
    for limit, why in ((len(LONG) + 5, "a value of 'words' from row 1 on in .* has 60 bytes"), (len(LONG) + 6, None)):
        columns = {"id": "id", "inline_text": "words"}
        if why is None:
            assert len(listed(tmp_path / "m.parquet", columns, max_cell_bytes=limit)) == 1
        else:
            with pytest.raises(ConfigError, match=why):
                listed(tmp_path / "m.parquet", columns, max_cell_bytes=limit)


def test_views_of_a_folder_fit_strings(tmp_path: Path) -> None:
    for name, kind in (("a", pa.string()), ("b", pa.string_view()), ("c", pa.large_string())):
        pq.write_table(pa.table({"id": [name], "v": pa.array([name], kind)}), tmp_path / f"{name}.parquet")
    found = listed(tmp_path, {"image": "id"}, passthrough=["v"])
    assert {row["v"] for row in found.values()} == {"a", "b", "c"}


def test_views_of_lists_are_never_cast(tmp_path: Path) -> None:
    """pyarrow 26 loses values when it casts one to a list, without an error."""
    values = [["x", None], None, [LONG]]
    for name, kind in (("a", pa.list_view(pa.string_view())), ("b", pa.list_view(pa.string()))):
        table = pa.table({"pic": ["1", "2", "3"], "v": pa.array(values, kind)})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    with pytest.raises(ConfigError, match=r"source\.passthrough: column 'v' holds list_view<.*, which cannot be cast;"):
        source(tmp_path / "a.parquet", {"image": "pic"}, passthrough=["v"])
    found = listed(tmp_path / "b.parquet", {"image": "pic"}, passthrough=["v"])
    assert [found[name]["v"] for name in "123"] == values
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"pic": ["0"], "v": [["y"]]}), tmp_path / "in" / "a.parquet")
    (tmp_path / "b.parquet").rename(tmp_path / "in" / "b.parquet")
    with pytest.raises(ConfigError, match=r"column 'v' of 'b\.parquet' .* holds list_view<"):
        source(tmp_path / "in", {"image": "pic"}, passthrough=["v"])
