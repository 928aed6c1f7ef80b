"""Blocks are split by the estimated size of their rows, which is compared with the real one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipeline.core.arrow import unpack
from pipeline.stages.block_splitter import BlockSplitter
from pipeline.stages.decode import DecodeStage, input_column
from pipeline.stages.probe import ProbeStage
from tests.stages.media_fixtures import AUDIO, IMAGE, VIDEO, bound, config, text, write_clip, write_tone

EDGE = 96
PICTURE = 3 * EDGE * EDGE
ALL = 1 << 62


def _probed(settings: Any) -> tuple[Any, Any, pa.Table]:
    settings, features, listed = bound(settings)
    stage = ProbeStage(settings, features)
    stage.setup()
    return settings, features, stage(listed)


def _estimates(features: Any, rows: pa.Table) -> list[float]:
    """Bytes of each row."""
    return [float(BlockSplitter(features, ALL).row_bytes(rows.slice(i, 1))[0]) for i in range(len(rows))]


def test_estimates_equal_the_decoded_sizes(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, seconds in (("a", 0.5), ("b", 3.25)):
        write_tone(folder / f"{name}.wav", seconds)
        write_clip(folder / f"{name}.mp4", seconds)
    Image.new("RGB", (30, 30)).save(folder / "c.png")
    frames = {**VIDEO, "tokenizer": {**VIDEO["tokenizer"], "size": EDGE}}
    uniform = {**frames, "tokenizer": {**frames["tokenizer"], "sampling": {"kind": "uniform", "frames": 3}}}
    few = {**frames, "tokenizer": {**frames["tokenizer"], "sampling": {"kind": "fps", "fps": 2, "max_frames": 4}}}
    picture = {**IMAGE, "tokenizer": {**IMAGE["tokenizer"], "size": EDGE}}
    for name, feature in {"a": AUDIO, "v": frames, "u": uniform, "f": few, "i": picture}.items():
        settings, features, rows = _probed(config(folder, {name: feature}))
        stage = DecodeStage(settings, features)
        stage.setup()
        inputs = stage(rows)
        column = next(one for one in ("waveform", "pixels") if input_column(name, one) in inputs.column_names)
        held = [0 if one is None else one.nbytes for one in unpack(inputs[input_column(name, column)])]
        slack = PICTURE if name in "vf" else 8  # a picture more or less
        np.testing.assert_allclose(_estimates(features, rows), held, rtol=0.01, atol=slack)


def test_the_size_of_a_picture_is_its_processor_s(tmp_path: Path, models: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    Image.new("RGB", (30, 30)).save(folder / "c.png")
    for model, encoder in (("vit", "vit"), ("dinov2", "vit"), ("clip", "clip")):
        feature = {
            "modality": "image",
            "tokenizer": {"kind": "patch"},
            "encoder": {"kind": encoder, "checkpoint": str(models / model)},
        }
        settings, features, rows = _probed(config(folder, {"i": feature}))
        stage = DecodeStage(settings, features)
        stage.setup()
        (pixels,) = unpack(stage(rows)[input_column("i", "pixels")])
        assert pixels is not None
        assert _estimates(features, rows) == [pixels.size]


def test_parts_hold_the_rows_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number, seconds in enumerate((1.0, 1.0, 2.5, 0.5, 0.5, 1.0)):
        write_tone(folder / f"{number}.wav", seconds)
    _, features, rows = _probed(config(folder, {"a": AUDIO}))
    second = 8000 * 4

    def counts(most: float) -> list[int]:
        parts = BlockSplitter(features, int(most)).split(rows)
        assert pa.concat_tables(parts).equals(rows)
        return [len(part) for part in parts]

    assert counts(ALL) == [6]
    assert counts(6.5 * second + 8) == [6]
    assert counts(2 * second + 8) == [2, 1, 3]
    assert counts(1) == [1] * 6
    (whole,) = BlockSplitter(features, ALL).split(rows)
    assert whole is rows
    assert BlockSplitter(features, 1).split(rows.slice(0, 0))[0].num_rows == 0


def test_tokens_of_texts_count_by_their_longest(tmp_path: Path, models: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.txt").write_text("words")
    (folder / "b.txt").write_text("other words")
    vectors = {
        "modality": "text",
        "tokenizer": {"kind": "text", "max_length": 30},
        "encoder": {"kind": "bert", "checkpoint": str(models / "bert")},
    }
    for feature, each in (
        ({**vectors, "emit": ["embedding", "tokens"]}, 30 * 48 * 2),
        ({**vectors, "emit": ["embedding"]}, 0),
        ({**vectors, "tokenizer": {"kind": "text"}, "emit": ["tokens"]}, 512 * 48 * 2),
        (text(models / "bert"), 0),
    ):
        _, features, rows = _probed(config(folder, {"t": feature}))
        assert _estimates(features, rows) == pytest.approx([each, each])


def test_a_row_without_times_counts_as_empty(tmp_path: Path) -> None:
    """A sound that cannot be opened, say: its row is a failure."""
    folder = tmp_path / "in"
    folder.mkdir()
    write_tone(folder / "a.wav", 1.0)
    (folder / "b.wav").write_bytes(b"RIFF")
    _, features, rows = _probed(config(folder, {"a": AUDIO}))
    assert sorted(_estimates(features, rows)) == [0.0, 32_000.0]
