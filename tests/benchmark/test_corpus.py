"""Samples are drawn from the whole corpus, always the same ones, and their repeats list as samples of their own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline import sources
from pipeline.benchmark import corpus
from pipeline.core.errors import ConfigError
from pipeline.core.schema import LISTING, ROLES
from pipeline.sources.manifest import Config
from pipeline.storage.roots import AllowedRoots
from tests.stages.media_fixtures import AUDIO, IMAGE, config, text


def _folders(samples: pa.Table) -> set[str]:
    return {sample.split("/")[0] for sample in samples["sample_id"].to_pylist()}


def test_it_draws_the_same_samples_every_time(demo_corpus: Path) -> None:
    settings = config(demo_corpus, {"i": IMAGE, "a": AUDIO})
    samples = corpus.draw(settings, 40)
    assert samples.schema == LISTING
    assert samples.equals(corpus.draw(settings, 40))
    assert samples.slice(0, 10).equals(corpus.draw(settings, 10))
    ids = samples["sample_id"].to_pylist()
    assert len(set(ids)) == 40
    assert ids != sorted(ids)
    assert _folders(samples) >= {"pictures", "drawings", "clips", "tones", "speech"}


def test_it_draws_evenly_from_a_listing_of_many_tables(tmp_path: Path, models: Path) -> None:
    lines = "".join(f"{i:05d},word {i}\n" for i in range(25_000))
    (tmp_path / "m.csv").write_text(f"id,words\n{lines}")
    source = {
        "kind": "manifest",
        "path": str(tmp_path / "m.csv"),
        "columns": {"id": "id", "inline_text": "words"},
    }
    settings = config(tmp_path, {"t": text(models / "bert")}, source=source)
    numbers = np.array([int(one) for one in corpus.draw(settings, 1000)["sample_id"].to_pylist()])
    counts = np.histogram(numbers, bins=5, range=(0, 25_000))[0]
    assert counts.sum() == 1000
    assert counts.min() > 150
    assert counts.max() < 250


@pytest.mark.parametrize(
    ("feature", "folders"),
    [
        (IMAGE, {"pictures", "drawings", "clips", "broken"}),  # a clip may hold a cover picture
        (AUDIO, {"clips", "tones", "speech", "broken"}),
        ("text", {"pictures", "clips", "tones", "speech", "notes", "broken"}),
    ],
)
def test_it_draws_only_what_a_feature_reads(demo_corpus: Path, models: Path, feature: Any, folders: set[str]) -> None:
    settings = config(demo_corpus, {"x": text(models / "bert") if feature == "text" else feature})
    assert _folders(corpus.draw(settings, 10_000)) == folders


def test_nothing_to_draw_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(ConfigError, match=r"^source\.path: .*in"):
        corpus.draw(config(tmp_path / "in", {"i": IMAGE}), 10)
    (tmp_path / "in" / "a.txt").write_text("words")
    with pytest.raises(ConfigError, match=r"^source: no sample holds what a feature reads"):
        corpus.draw(config(tmp_path / "in", {"i": IMAGE}), 10)


def _listing(**columns: list[str | None]) -> pa.Table:
    count = len(next(iter(columns.values())))
    names = {"sample_id": [f"s{i}" for i in range(count)], "source_version": ["v"] * count, **columns}
    return pa.Table.from_pylist(
        [{name: values[i] for name, values in names.items()} for i in range(count)], schema=LISTING
    )


def _listed(source: Config) -> pa.Table:
    made = sources.build(source)
    made.check("source")
    return pa.concat_tables(made.list())


@pytest.mark.parametrize(("count", "times"), [(2, 1), (3, 3), (5, 2), (300, 3)])
def test_each_sample_is_listed_so_many_times(tmp_path: Path, count: int, times: int) -> None:
    samples = _listing(image_uri=["/m/a.png", "/m/b.png", "/m/c.png"])
    listed = _listed(corpus.repeated(samples, count, times, str(tmp_path), AllowedRoots(("/m",))))
    ring = [f"/m/{'abc'[i % 3]}.png" for i in range(count)]
    assert listed["image_uri"].to_pylist() == ring * times
    assert len(set(listed["sample_id"].to_pylist())) == count * times
    assert Counter(listed["image_uri"].to_pylist()) == {uri: many * times for uri, many in Counter(ring).items()}


def test_texts_and_the_files_of_every_role_survive(tmp_path: Path) -> None:
    samples = _listing(
        text_uri=["/m/a b.txt", None, None],
        image_uri=["s3://bucket/a#1.png", None, None],
        video_uri=["/m/100%.mp4", None, None],
        audio_uri=["https://host/a.wav", None, "/m/ümläut/[x].ogg"],
        other_uri=[None, None, "/m/plain"],
        inline_text=[None, 'two\nlines, "quoted"', None],
    )
    roots = AllowedRoots(("/m", "s3://bucket", "https://host"))
    source = corpus.repeated(samples, 3, 2, str(tmp_path), roots)
    assert source.schemes == ("file", "https", "s3")
    names = [*(f"{role}_uri" for role in ROLES), "inline_text"]
    assert _listed(source).select(names).to_pylist() == samples.select(names).to_pylist() * 2


def test_what_is_drawn_lists_again_as_it_was(demo_corpus: Path, models: Path, tmp_path: Path) -> None:
    samples = corpus.draw(config(demo_corpus, {"i": IMAGE, "t": text(models / "bert")}), 50)
    listed = _listed(corpus.repeated(samples, 50, 1, str(tmp_path), AllowedRoots((str(demo_corpus),))))
    assert not listed["forbidden"].drop_null().to_pylist()
    names = [f"{role}_uri" for role in ROLES]
    assert listed.select(names).equals(samples.select(names))
