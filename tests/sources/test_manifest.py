"""A table becomes samples: all formats alike, values unchanged, and each mistake reported with its place."""

from __future__ import annotations

import csv
import datetime
import gzip
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from pipeline.core.errors import ConfigError
from pipeline.sources import manifest as module
from pipeline.sources._tables import csv_table
from pipeline.sources.manifest import Config
from tests.sources.manifests import COLUMNS, ROWS, listed, source, write
from tests.support import faulty


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
    faulty.plan(tmp_path, {table.name: faulty.Fault("read", "short", after=0)})
    with pytest.raises(ConfigError, match=r"source\.path: .*truncated read"):
        listed(url, {"image": "pic"}, **options)
