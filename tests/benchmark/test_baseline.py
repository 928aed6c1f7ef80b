"""The bare loops do the work of a run, and count nothing else."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipeline.benchmark import baseline, corpus
from pipeline.config.features import bind
from pipeline.core.arrow import unpack
from pipeline.core.errors import SampleError, TesseraError
from pipeline.stages.decode import TIMES, DecodeStage, input_column
from pipeline.stages.probe import ProbeStage
from tests.benchmark.measured import caption, picture
from tests.stages.media_fixtures import AUDIO, IMAGE, RAW, VIDEO, bound, config, write_clip, write_tone


def _loops(settings: Any) -> tuple[baseline.Loops, pa.Table]:
    _, features, samples = bound(settings)
    return baseline.Loops(settings, features), samples


def _pictures(folder: Path, count: int) -> None:
    folder.mkdir()
    dice = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(dice.integers(0, 255, (200, 200, 3), np.uint8)).save(folder / f"{i}.jpg")


def test_it_measures_both_loops(demo_corpus: Path, models: Path) -> None:
    settings = config(demo_corpus, {"p": picture(models), "c": caption(models)}, compute={"block_rows": 8})
    took = baseline.measure(settings, bind(settings), corpus.draw(settings, 24), 0.2)
    assert took.rows > 0
    assert took.rows % 8 == 0
    assert 0.5 < took.rows_per_sample <= 1  # nothing here is cut into windows; some samples hold neither
    assert min(took.probe_s, took.decode_s, took.encode_s) > 0
    assert set(took.encode_by_feature) == {"p", "c"}
    assert sum(took.encode_by_feature.values()) == pytest.approx(took.encode_s)
    assert took.device_s is None


def test_it_measures_one_block_at_least_and_not_the_first(demo_corpus: Path, models: Path) -> None:
    settings = config(demo_corpus / "pictures", {"p": picture(models)}, compute={"block_rows": 5})
    took = baseline.measure(settings, bind(settings), corpus.draw(settings, 24), 0.0)
    assert (took.rows, took.rows_per_sample, took.failed) == (5, 1.0, 0)


def test_samples_come_again_window_by_window_as_samples_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, seconds in (("a", 2.3), ("b", 1.0)):
        write_tone(tmp_path / "in" / f"{name}.wav", seconds)
    loops, samples = _loops(config(tmp_path / "in", {"a": AUDIO}, window={"length_s": 1}, compute={"block_rows": 3}))
    rows = [row for block in itertools.islice(loops.rows(samples), 3) for row in block]
    expected = ["0/a.wav 0", "0/a.wav 1", "0/a.wav 2", "1/b.wav 0", "2/a.wav 0", "2/a.wav 1", "2/a.wav 2", "3/b.wav 0"]
    assert [f"{row['sample_id']} {row['window']}" for row in rows] == [*expected, "4/a.wav 0"]
    assert loops.took.rows == 0
    loops.decoded(rows)
    assert loops.took.rows == 9
    assert loops.took.rows_per_sample == 11 / 5  # those of the last one's that are still to come too


def test_what_is_decoded_is_what_a_run_decodes(demo_corpus: Path, models: Path) -> None:
    features = {"p": picture(models), "v": VIDEO, "a": AUDIO, "c": caption(models)}
    settings = config(demo_corpus, features, window={"length_s": 2})
    samples = corpus.draw(settings, 16)
    loops = baseline.Loops(settings, bind(settings))
    probe, decode = ProbeStage(settings, loops.features), DecodeStage(settings, loops.features)
    probe.setup()
    decode.setup()
    table = probe(samples)
    counted = baseline.rows_of(table, loops.features)
    numbers = {(row["sample_id"], row["window"]): i for i, row in enumerate(table.to_pylist())}
    expected = decode(table).take([numbers[row["sample_id"], row["window"]] for row in counted])
    rows = [row for block in itertools.islice(loops.rows(samples), 4) for row in loops.decoded(block)]
    assert loops.took.rows == len(rows) == 4 * settings.block_rows
    assert len(rows) >= len(counted) > 16
    rows = rows[: len(counted)]
    for name in features:
        columns = [one for one in expected.schema.names if one.startswith(f"{name}/")]
        assert columns
        for column in columns:
            for row, array in zip(rows, unpack(expected[column]), strict=True):
                inputs = row.inputs[name]
                part = column.removeprefix(input_column(name, ""))
                ours = None if inputs is None else inputs.times_s if part == TIMES else inputs.inputs[part]
                assert (ours is None) is (array is None)
                if ours is not None and array is not None:
                    np.testing.assert_array_equal(ours, array)


def test_what_fails_is_counted_and_the_rest_goes_on(tmp_path: Path, models: Path) -> None:
    _pictures(tmp_path / "in", 2)
    half = (tmp_path / "in" / "1.jpg").read_bytes()
    (tmp_path / "in" / "1.jpg").write_bytes(half[: len(half) // 2])
    settings = config(tmp_path / "in", {"p": picture(models), "r": IMAGE}, compute={"block_rows": 4})
    _, features, samples = bound(settings)
    took = baseline.measure(settings, features, samples, 0.0)
    assert (took.rows, took.failed) == (4, 4)  # two of four rows, each in both features
    assert took.encode_by_feature["p"] > 0


def test_what_stands_in_many_windows_is_encoded_once(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.encoders.clip import ClipEncoder

    folder = tmp_path / "in"
    folder.mkdir()
    write_clip(folder / "x.mp4", 3.0)
    (folder / "x.txt").write_text("a caption of a clip")
    loops, samples = _loops(
        config(folder, {"v": VIDEO, "t": caption(models)}, window={"length_s": 1}, compute={"block_rows": 3})
    )
    counts: list[int] = []
    original = ClipEncoder.encode
    monkeypatch.setattr(
        ClipEncoder, "encode", lambda self, rows, want: counts.append(len(rows)) or original(self, rows, want)
    )
    loops.encoded(loops.decoded(next(loops.rows(samples))))
    assert counts == [1]
    assert loops.took.rows == 3


def test_features_without_a_model_are_encoded_too(tmp_path: Path) -> None:
    _pictures(tmp_path / "in", 3)
    settings = config(tmp_path / "in", {"i": {**IMAGE, "encoder": RAW}}, compute={"block_rows": 3})
    _, features, samples = bound(settings)
    took = baseline.measure(settings, features, samples, 0.0)
    assert took.rows == 3
    assert took.encode_by_feature["i"] > 0


def test_one_sample_is_decoded_for_every_row(tmp_path: Path) -> None:
    _pictures(tmp_path / "in", 1)
    loops, samples = _loops(config(tmp_path / "in", {"i": IMAGE}, compute={"block_rows": 8}))
    rows = loops.decoded(next(loops.rows(samples)))
    assert sum(row.cost.decoded for row in rows) == 8


def test_a_window_of_nothing_is_no_row(tmp_path: Path) -> None:
    """A clip is opened for the picture that it may have; `rows_planned` of a run leaves it out."""
    _pictures(tmp_path / "in", 1)
    write_clip(tmp_path / "in" / "x.mp4", 1.0)
    loops, samples = _loops(config(tmp_path / "in", {"i": IMAGE}, compute={"block_rows": 4}))
    rows = loops.decoded(next(loops.rows(samples)))
    assert [row.inputs["i"] is not None for row in rows] == [True] * 4
    assert loops.took.rows == 4
    assert loops.took.rows_per_sample == pytest.approx(0.5, abs=0.1)


def test_a_row_that_only_failed_is_one(tmp_path: Path) -> None:
    _pictures(tmp_path / "in", 1)
    write_clip(tmp_path / "in" / "x.mp4", 1.0)
    (tmp_path / "in" / "broken.jpg").write_bytes(b"no picture")
    loops, samples = _loops(config(tmp_path / "in", {"i": IMAGE}))
    rows = baseline.rows_of(loops.probe(samples), loops.features)
    assert {row["sample_id"]: bool(row["failures"]) for row in rows} == {"0.jpg": False, "broken.jpg": True}


def test_samples_of_nothing_are_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_clip(tmp_path / "in" / "x.mp4", 1.0)
    settings, features, samples = bound(config(tmp_path / "in", {"i": IMAGE}))
    with pytest.raises(TesseraError, match="none of the samples drawn holds what a feature reads"):
        baseline.measure(settings, features, samples, 0.0)


@pytest.mark.parametrize(
    ("answer", "failed"),
    [
        (RuntimeError("by design"), 3),
        pytest.param(
            SampleError("memory", "by design"),
            1,
        ),
    ],
)
def test_what_cannot_be_encoded_is_counted_and_the_rest_goes_on(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch, answer: Exception, failed: int
) -> None:
    _pictures(tmp_path / "in", 3)
    loops, samples = _loops(config(tmp_path / "in", {"p": picture(models), "i": IMAGE}, compute={"block_rows": 3}))
    original = loops.encode.encoders["p"].encode

    def encode(rows: Any, want_tokens: bool) -> Any:
        if isinstance(answer, SampleError):
            return [answer, *original(rows[1:], want_tokens)]
        raise answer

    monkeypatch.setattr(loops.encode.encoders["p"], "encode", encode)
    loops.encoded(loops.decoded(next(loops.rows(samples))))
    assert set(loops.took.encode_by_feature) == {"p", "i"}
    assert loops.took.failed == failed
