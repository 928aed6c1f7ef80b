"""Encoding: stored columns in their types; NaN and overflow are failures, named; neighbours go on."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from pipeline.core.arrow import unpack
from pipeline.core.errors import TesseraError
from pipeline.encoders._shared.device import download
from pipeline.encoders.base import Encoded
from pipeline.encoders.raw import RawEncoder
from pipeline.stages._encoded_columns import unstorable
from pipeline.stages.decode import DecodeStage
from pipeline.stages.encode import EncodeStage
from pipeline.stages.probe import ProbeStage
from pipeline.stages.rows import STORED_WINDOWS
from pipeline.tokenizers.base import ModelInputs
from tests.stages.media_fixtures import IMAGE, VIDEO, bound, config, text, write_clip


def _encode(settings: Any) -> tuple[pa.Table, Any]:
    settings, features, table = bound(settings)
    for stage in (ProbeStage(settings, features), DecodeStage(settings, features), EncodeStage(settings, features)):
        stage.setup()
        table = stage(table)
    return table, features


def _pictures(folder: Path, count: int) -> None:
    folder.mkdir()
    for i in range(count):
        Image.new("RGB", (32, 32), (10 * i, 0, 255)).save(folder / f"{i}.png")


@pytest.mark.parametrize("name", ["i", "stored"])
def test_columns_have_the_stored_types_and_inputs_are_gone(tmp_path: Path, name: str) -> None:
    _pictures(tmp_path / "in", 3)
    table, (feature,) = _encode(config(tmp_path / "in", {name: IMAGE}))
    for field in feature.fields():
        assert table.schema.field(field.name).type == field.type
    assert [column for column in table.schema.names if "/" in column] == [STORED_WINDOWS]
    tokens = np.array(table[f"{name}_tokens"].to_pylist())
    assert tokens.shape == (3, 16, 192)
    expected = np.stack([[10 * i, 0, 255] for i in range(3)]) / 255
    np.testing.assert_allclose(tokens.reshape(3, -1, 3), np.broadcast_to(expected[:, None], (3, 1024, 3)), atol=1e-3)
    assert table[f"{name}_grid"].to_pylist() == [[1, 4, 4]] * 3
    assert all(seconds > 0 for seconds in table["meter_encode_s"].to_pylist())


def test_a_device_that_failed_blames_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any, rows: Sequence[ModelInputs], want_tokens: bool) -> list[Any]:
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    _pictures(tmp_path / "in", 3)
    monkeypatch.setattr(RawEncoder, "encode", broken)
    with pytest.raises(TesseraError, match=r"features.i: the device failed \(.*assert triggered\): run again"):
        _encode(config(tmp_path / "in", {"i": IMAGE}))


@pytest.mark.parametrize(
    ("value", "store", "kind"),
    [
        (np.nan, "float32", "nan"),
        (np.inf, "float16", "nan"),
        (70000.0, "float16", "overflow"),
        (70000.0, "float32", None),
    ],
)
def test_what_cannot_be_stored_fails_its_row_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float, store: str, kind: str | None
) -> None:
    _pictures(tmp_path / "in", 3)
    original = RawEncoder.encode

    def poisoned(self: Any, rows: Sequence[ModelInputs], want_tokens: bool) -> list[Any]:
        done = original(self, rows, want_tokens)
        assert isinstance(done[1], Encoded)
        assert done[1].tokens is not None
        done[1].tokens[0, 0] = value
        return done

    monkeypatch.setattr(RawEncoder, "encode", poisoned)
    table, _ = _encode(config(tmp_path / "in", {"i": {**IMAGE, "store": {"tokens": store}}}))
    assert [[f["kind"] for f in row] for row in table["failures"].to_pylist()] == [[], [kind] if kind else [], []]
    valid = table["i_tokens"].is_valid().to_pylist()
    assert valid == table["i_grid"].is_valid().to_pylist() == [True, kind is None, True]


def test_one_row_that_breaks_the_encoder_does_not_cost_its_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pictures(tmp_path / "in", 4)
    original = RawEncoder.encode

    def fragile(self: Any, rows: Sequence[ModelInputs], want_tokens: bool) -> list[Any]:
        if any(row.inputs["pixels"][0, 0, 0] == 20 for row in rows):
            raise RuntimeError("cannot digest")
        return original(self, rows, want_tokens)

    monkeypatch.setattr(RawEncoder, "encode", fragile)
    table, _ = _encode(config(tmp_path / "in", {"i": IMAGE}))
    assert [[(f["stage"], f["message"]) for f in row] for row in table["failures"].to_pylist()] == [
        [],
        [],
        [("encode", "RuntimeError: cannot digest")],
        [],
    ]


def test_untimed_media_are_encoded_once_and_their_tokens_stand_in_window_0(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_clip(folder / "x.mp4", 3.0)
    (folder / "x.txt").write_text("a caption of a clip")
    clip = str(models / "clip")
    words = {
        "modality": "text",
        "tokenizer": {"kind": "text"},
        "encoder": {"kind": "clip", "checkpoint": clip},
        "emit": ["embedding", "tokens"],
    }
    from pipeline.encoders.clip import ClipEncoder

    counts: list[int] = []
    original = ClipEncoder.encode
    monkeypatch.setattr(
        ClipEncoder, "encode", lambda self, rows, want: counts.append(len(rows)) or original(self, rows, want)
    )
    table, _ = _encode(config(folder, {"v": VIDEO, "t": words, "ids": text(models / "bert")}, window={"length_s": 1}))
    assert counts == [1]
    vectors = table["t_embedding"].to_pylist()
    assert vectors[0] == vectors[1] == vectors[2]
    assert np.linalg.norm(vectors[0]) == pytest.approx(1, abs=1e-6)
    assert table["t_tokens"].is_valid().to_pylist() == [True, False, False]
    assert table["ids_token_ids"].is_valid().to_pylist() == [True, False, False]
    assert table["v_tokens"].is_valid().to_pylist() == [True, True, True]
    assert table["cells"].to_pylist() == [3, 2, 2]


def test_a_row_that_is_nan_shares_a_batch_and_fails_alone(tmp_path: Path, models: Path) -> None:
    """A true model that has no number for one token: its rows are NaN, the others as if they were alone."""
    folder = tmp_path / "in"
    folder.mkdir()
    words = ["a red circle", "a zebra crossing in the rain", "green star", "a zebra", "one more and much longer text"]
    for i, line in enumerate(words):
        (folder / f"{i}.txt").write_text(line)
    feature = {
        "modality": "text",
        "tokenizer": {"kind": "text"},
        "encoder": {"kind": "bert", "checkpoint": str(models / "bert")},
        "emit": ["embedding", "tokens"],
    }
    settings, features, table = bound(config(folder, {"t": feature}))
    for stage in (ProbeStage(settings, features), DecodeStage(settings, features)):
        stage.setup()
        table = stage(table)
    encode = EncodeStage(settings, features)
    encode.setup()
    whole = encode(table)
    assert whole["failures"].to_pylist() == [[]] * 5
    model: Any = encode.encoders["t"].model  # type: ignore[attr-defined]
    ids = [set(row.tolist()) for row in unpack(table["t/input_ids"]) if row is not None]
    only = sorted(ids[1] & ids[3] - ids[0] - ids[2] - ids[4])
    embeddings = model.get_input_embeddings()
    embeddings.weight.data = embeddings.weight.data.clone()
    for value in (np.nan, np.inf):
        embeddings.weight.data[only[0]] = value
        got = encode(table)
        reported = [[(f["stage"], f["kind"]) for f in row] for row in got["failures"].to_pylist()]
        assert reported == [[], [("encode", "nan")], [], [("encode", "nan")], []]
        for column in ("t_embedding", "t_tokens"):
            assert got[column].is_valid().to_pylist() == [True, False, True, False, True]
            for i in (0, 2, 4):
                expected = np.array(whole[column][i].as_py(), np.float64)
                np.testing.assert_allclose(np.array(got[column][i].as_py(), np.float64), expected, atol=2e-3)


def test_tables_at_once_become_what_they_become_one_by_one(tmp_path: Path, models: Path) -> None:
    """Tokens as float16, in passes smaller than a table; compared when all are done, so that no view of a buffer that
    was given away would be right any more."""
    _pictures(tmp_path / "in", 24)
    encoder = {"kind": "vit", "checkpoint": str(models / "dinov2"), "batch_size": 5}
    feature = {"modality": "image", "tokenizer": {"kind": "patch"}, "encoder": encoder}
    emit = ["embedding", "tokens", "prefix_tokens"]
    settings = config(tmp_path / "in", {"i": {**feature, "emit": emit, "store": {"tokens": "float16"}}})
    _, features, samples = bound(settings)
    probe, decode, encode = (kind(settings, features) for kind in (ProbeStage, DecodeStage, EncodeStage))
    for stage in (probe, decode, encode):
        stage.setup()
    tables = [decode(probe(samples.slice(start, 8))) for start in (0, 8, 16)]
    columns = [field.name for field in features[0].fields()]
    one_by_one = [encode(table).select(columns) for table in tables]
    kept = [table.to_pylist() for table in one_by_one]
    with ThreadPoolExecutor(3) as threads:
        at_once = list(threads.map(encode, tables * 6))
    for number, table in enumerate(at_once):
        assert table.select(columns).to_pylist() == kept[number % 3]
    assert kept[0] != kept[1]
    assert one_by_one[0].schema.field("i_tokens").type.value_type.value_type == pa.float16()


@pytest.mark.parametrize("largest", [65_504.0, 65_510.0])
def test_what_fits_float16_does_not_hang_on_the_rows_beside_it(largest: float) -> None:
    """65,510 would be rounded down to the largest float16."""
    values = torch.full((2, 3, 4), 1.0)
    values[0, 1, 2] = largest
    for rest in (1.0, 70_000.0):
        values[1, 0, 0] = rest
        found = download(values, np.dtype(np.float16))
        assert (found.dtype == np.float16) == (largest == 65_504.0 and rest == 1.0)
        problem = None if found.dtype == np.float16 else unstorable(found[0], np.dtype(np.float16))
        assert (problem is None) == (largest == 65_504.0)
