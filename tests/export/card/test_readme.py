"""README.md: the header as the libraries of Hugging Face parse it, the tables as a Markdown parser reads them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import DatasetCard
from markdown_it import MarkdownIt
from markdown_it.token import Token

from pipeline import dataset
from pipeline.export.card import readme
from pipeline.export.card.facts import Facts
from tests.dataset import reader_fixtures
from tests.dataset.loading import written
from tests.export.card import hostile

PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def _render(path: str) -> str:
    text, _ = readme.render(Facts.of(dataset.open(path)))
    return text


def _body(text: str) -> str:
    assert text.startswith("---\n")
    return text.split("\n---\n", 1)[1]


def _inlines(text: str) -> list[Token]:
    return [child for token in PARSER.parse(_body(text)) for child in token.children or [token]]


def _tables(text: str) -> dict[str, list[list[str]]]:
    """Returns heading -> rows of cells, as text without markup."""
    found: dict[str, list[list[str]]] = {}
    heading, tokens = "", PARSER.parse(_body(text))
    for before, token in itertools.pairwise(tokens):
        if token.type == "inline" and before.type == "heading_open":
            heading = token.content
        elif before.type == "tr_open":
            found.setdefault(heading, []).append([])
        if token.type == "inline" and before.type in ("td_open", "th_open"):
            found[heading][-1].append("".join(one.content for one in token.children or []))
    return found


@pytest.fixture
def path(tmp_path: Path) -> str:
    reader_fixtures.write(str(tmp_path / "good" / "v1"))
    return str(tmp_path / "good")


def test_the_header(path: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(_render(path))
    header = DatasetCard.load(tmp_path / "README.md").data.to_dict()
    assert header["pretty_name"] == "good"
    assert header["tags"] == ["tessera", "embeddings", "audio", "image", "text"]
    assert header["size_categories"] == ["n<1K"]
    (config,) = header["configs"]
    data = dataset.open(path)
    assert config["config_name"] == "default"
    assert config["data_files"] == [{"split": "train", "path": [f"v1/{shard.path}" for shard in data.shards]}]
    info = header["dataset_info"]
    assert [one["name"] for one in info["features"]] == data.schema.names
    assert info["splits"][0]["num_examples"] == data.num_rows == 29
    assert "license" not in header
    from datasets.info import DatasetInfosDict

    (parsed,) = DatasetInfosDict.from_dataset_card_data(DatasetCard.load(tmp_path / "README.md").data).values()
    assert parsed.features.arrow_schema.field("photo_embedding").type == data.schema.field("photo_embedding").type


def test_the_tables(path: str) -> None:
    tables = _tables(_render(path))
    summary = dict(tables["good"][1:])
    assert summary["version, snapshot"] == "v1, 1"
    assert summary["run"] == reader_fixtures.RUN
    assert (summary["rows"], summary["failed features of rows"]) == ("29", "1")
    names, photo, caption, sound = tables["Features"]
    assert dict(zip(names, photo, strict=True)) == {
        "feature": "photo",
        "modality": "image",
        "model": "tiny-clip (clip)",
        "revision": "–",
        "sha256 of the weights": "ab" * 32,
        "embedding": "6 float32",
        "tokens": "4 float16",
        "space": "clip:ab, normalized",
    }
    assert caption[0] == "caption"
    assert sound[-1] == "w2v:cd"
    names, photo, *_ = tables["Preprocessing"]
    assert dict(zip(names, photo, strict=True)) == {
        "feature": "photo",
        "tokenizer": "patch",
        "processor": "CLIPImageProcessor",
        "fingerprint": "f1",
    }
    columns = {row[0]: row[1:] for row in tables["Columns"][1:]}
    assert list(columns) == dataset.open(path).schema.names
    assert columns["photo_grid"] == ["list<element: int32>", "grid (T, H, W) of the tokens of photo"]
    assert columns["label"] == ["string", "copied from the corpus"]


def test_hostile_texts_have_no_effect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = _render(hostile.write(tmp_path / "ds", monkeypatch))
    kinds = {token.type for token in _inlines(text)}
    assert not kinds & {"link_open", "image", "html_inline", "html_block", "strong_open", "em_open", "s_open"}
    headings = [token.content for token in PARSER.parse(_body(text)) if token.type == "inline" and token.level == 1]
    assert [one for one in headings if "heading" in one] == []
    tables = _tables(text)
    assert [*tables] == ["ds", "Features", "Preprocessing", "Columns"]
    assert len(tables["Features"]) == 1 + 2 + len(hostile.TEXTS)
    assert {len(row) for row in tables["Features"]} == {8}
    assert len(tables["Columns"]) == 1 + len(written.SCHEMA) + len(hostile.COLUMNS)
    models = [row[2] for row in tables["Features"][3:]]
    assert models[1].startswith("<script>alert(1)</script><img src=x onerror=alert(1)> (<script>")
    assert models[0].startswith("a | b | --- | # heading (a | b")
    assert "s3://***@bucket/model" in models[6]
    assert hostile.SECRET not in text
    header = yaml.safe_load(text.split("---\n")[1])
    assert [one["name"] for one in header["dataset_info"]["features"]][-len(hostile.COLUMNS) :] == [*hostile.COLUMNS]
    assert "license" not in header


def test_bare_addresses_are_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GitHub's Markdown makes links of them without any markup."""
    text = _render(hostile.write(tmp_path / "ds", monkeypatch))
    for bare in ("www.evil", "https://evil"):
        assert bare not in _body(text)


@pytest.mark.parametrize(
    ("rows", "name"),
    [
        (0, "n<1K"),
        (999, "n<1K"),
        (1000, "1K<n<10K"),
        (99_999, "10K<n<100K"),
        (10**6, "1M<n<10M"),
        (10**9, "1B<n<10B"),
        (10**13, "n>1T"),
    ],
)
def test_size_categories(rows: int, name: str) -> None:
    assert readme._size_category(rows) == name


def test_a_column_that_datasets_has_no_type_for(tmp_path: Path) -> None:
    import pyarrow as pa

    schema = pa.schema([*written.SCHEMA, pa.field("map", pa.map_(pa.string(), pa.int32()))])
    rows: list[dict[str, Any]] = [{**written.row(1), "map": [("a", 1)]}]
    path = written.write(tmp_path / "ds", rows, 1, schema=schema)
    text, warnings = readme.render(Facts.of(dataset.open(path)))
    assert "`datasets` has no type for a column" in warnings[0]
    header = yaml.safe_load(text.split("---\n")[1])
    assert "dataset_info" not in header
    assert header["configs"]
