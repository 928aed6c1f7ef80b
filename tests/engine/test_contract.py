"""What every engine promises: the same rows, failures and figures for the same spec."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline import dataset, run
from pipeline.config import PipelineConfig
from pipeline.config.models import EngineName
from pipeline.core.errors import TesseraError
from pipeline.engine import ENGINES
from pipeline.stages.encode import EncodeStage
from tests.stages.media_fixtures import AUDIO, IMAGE, VIDEO, config, media_config, write_clip, write_tone

DAILY = [name if name == "local" else pytest.param(name, marks=pytest.mark.slow) for name in ENGINES]
"""All engines. One of them every day; the demo's rows are compared every day, too."""
TOLERANCE = 1e-4
"""The exactness contract: engines may batch rows otherwise."""
ORDER = [("sample_id", "ascending"), ("window", "ascending")]


Extracted = dict[EngineName, tuple[Path, dict[str, Any]]]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("demo_corpus", ["inline", "local"]), id="demo-inline-local"),
        pytest.param(("demo_corpus", ["local", "ray"]), id="demo-local-ray", marks=pytest.mark.slow),
        pytest.param(("data", ["inline", "local", "ray"]), id="real-all", marks=pytest.mark.slow),
    ],
)
def extracted(
    request: pytest.FixtureRequest, prepare: Callable[..., Any], models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Extracted:
    """Engine -> the dataset that it made of a corpus, and its report. On Ray eight processes import the models' code.

    The real media are those that decode, and those that are broken or odd.
    """
    corpus, engines = request.param
    folder = request.getfixturevalue(corpus)
    only = {"data": ["source.include=['images/**','videos/**','audio/**','text/**','bad/**']"]}.get(corpus, [])
    found: Extracted = {}
    if "ray" in engines:
        request.getfixturevalue("ray_session")
    for name in engines:
        out = tmp_path_factory.mktemp(name) / "out"
        settings = media_config(models, folder, out, *only, "failures.max_fraction=1.0")
        found[name] = out, run.extract(prepare(settings, False, None, name), show_progress=False)
    return found


def test_rows_are_equal_in_all_columns(extracted: Extracted) -> None:
    first, *others = (dataset.open(str(out)).to_arrow().sort_by(ORDER) for out, _ in extracted.values())
    assert len(first) > 400
    for other in others:
        assert other.schema == first.schema
        for name in first.column_names:
            if name != "run_id":
                _assert_equal(name, first[name].combine_chunks(), other[name].combine_chunks())


def _assert_equal(name: str, one: pa.Array, other: pa.Array) -> None:
    """Nulls, lengths and values; floats within the exactness contract."""
    assert one.type == other.type
    assert one.is_valid().equals(other.is_valid()), name
    if pa.types.is_list(one.type) or pa.types.is_fixed_size_list(one.type):
        if pa.types.is_list(one.type):
            assert one.value_lengths().equals(other.value_lengths()), name
        _assert_equal(name, one.flatten(), other.flatten())
    elif pa.types.is_floating(one.type):
        here, there = (values.drop_null().to_numpy().astype(np.float64) for values in (one, other))
        assert np.all(np.abs(here - there) <= TOLERANCE * max(1.0, np.abs(here).max(initial=0))), name
    else:
        assert one.equals(other), name


def test_failures_are_equal(extracted: Extracted) -> None:
    first, *others = (dataset.open(str(out)).failures().drop_columns(["run_id"]) for out, _ in extracted.values())
    assert len(first) > 5
    keys = [*ORDER, ("feature", "ascending")]
    for other in others:
        assert other.sort_by(keys).equals(first.sort_by(keys))


def test_reports_say_the_same(extracted: Extracted) -> None:
    first, *others = (report for _, report in extracted.values())
    same = ("samples", "samples_by_class", "rows_planned", "rows_written", "rows_failed", "cells", "failures_by_kind")
    for other in others:
        assert {*other} == {*first}
        assert [other[key] for key in same] == [first[key] for key in same]
        assert other["decoded"] == first["decoded"]
        assert other["startup_seconds"] > 0
        assert other["devices"]["nodes"] == 1


class Broken(EncodeStage):
    def __call__(self, table: pa.Table, journal: Any = None) -> pa.Table:
        raise ArithmeticError("a defect of the stage")


class Loses(EncodeStage):
    def __call__(self, table: pa.Table, journal: Any = None) -> pa.Table:
        done = super().__call__(table, journal)
        return done.slice(0, max(0, len(done) - 1))


def _small(folder: Path, out: Path, **more: Any) -> PipelineConfig:
    """Clips, tones and pictures in windows of a second, in blocks of four rows; one file is broken."""
    folder.mkdir(exist_ok=True)
    write_clip(folder / "clip.mp4", 2.5, sound_s=2.5)
    write_tone(folder / "tone.wav", 3.2)
    (folder / "bad.wav").write_bytes(b"RIFF....WAVE")
    features = {"i": IMAGE, "a": AUDIO, "v": VIDEO}
    settings = config(folder, features, window={"length_s": 1}, compute={"block_rows": 4}, **more)
    return settings.model_copy(update={"output": settings.output.model_copy(update={"path": str(out)})})


@pytest.mark.parametrize("name", DAILY)
def test_a_second_run_has_nothing_to_do_and_a_new_version_copies(
    ray_session: Any, prepare: Callable[..., Any], tmp_path: Path, name: EngineName
) -> None:
    settings = _small(tmp_path / "in", tmp_path / "out")
    first = run.extract(prepare(settings, False, None, name), show_progress=False)
    assert (first["rows_written"], first["rows_failed"]) == (7, 1)
    again = run.extract(prepare(settings, False, None, name), show_progress=False)
    assert (again["decoded"], again["samples_by_class"]["unchanged"]) == (0, 3)
    newer = run.extract(prepare(settings, True, None, name), show_progress=False)
    assert newer["rows_written"] == 7
    assert newer["decoded"] <= 1, "but for the file that fails"
    versions = [
        dataset.open(str(tmp_path / "out"), version=version).to_arrow().sort_by(ORDER) for version in ("v1", "v2")
    ]
    assert versions[0].drop_columns(["run_id"]).equals(versions[1].drop_columns(["run_id"]))


@pytest.mark.parametrize(
    ("name", "stage", "message"),
    [
        pytest.param(name, stage, message, id=f"{case}-{name}", marks=[pytest.mark.slow] if name in rare else [])
        for case, stage, message, rare in (
            ("a stage raises", Broken, r"the run .* broke off: ArithmeticError: a defect of the stage", {"inline"}),
            ("rows are lost", Loses, r"the books of run .* do not balance: .* were cut, .* arrived", {"inline", "ray"}),
        )
        for name in ENGINES
    ],
)
def test_a_defect_of_a_stage_ends_the_run_without_a_commit(
    ray_session: Any,
    prepare: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: EngineName,
    stage: type[EncodeStage],
    message: str,
) -> None:
    monkeypatch.setattr("pipeline.run.pipeline.EncodeStage", stage)
    settings = _small(tmp_path / "in", tmp_path / "out")
    with pytest.raises(TesseraError, match=message):
        run.extract(prepare(settings, False, None, name), show_progress=False)
    assert not list((tmp_path / "out").glob("v1/_snapshots/*"))
    assert not list((tmp_path / "out").rglob("*.tmp"))
