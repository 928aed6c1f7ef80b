"""Decoding and tokenizing: each cell gets its arrays or its reason; nothing is decoded twice."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipeline.core.arrow import unpack
from pipeline.decoders import opening
from pipeline.sandbox import LimitsConfig, SandboxedStage, StageContext
from pipeline.stages.decode import DecodeStage, input_column
from pipeline.stages.probe import ProbeStage
from tests.encoders import sound_fixtures
from tests.stages.media_fixtures import AUDIO, IMAGE, VIDEO, bound, config, text, write_clip, write_tone
from tests.support import ROOT


def _decode(settings: Any) -> pa.Table:
    settings, features, table = bound(settings)
    for stage in (ProbeStage(settings, features), DecodeStage(settings, features)):
        stage.setup()
        table = stage(table)
    return table


def test_windows_of_a_sound_join_to_the_whole(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    wave = write_tone(folder / "a.wav", 2.3)
    table = _decode(config(folder, {"a": AUDIO}, window={"length_s": 1}))
    pieces = unpack(table[input_column("a", "waveform")])
    assert [len(p) for p in pieces if p is not None] == [8000, 8000, 2400]
    np.testing.assert_array_equal(np.concatenate([p for p in pieces if p is not None]), wave)
    assert [t[0] for t in unpack(table[input_column("a", "times")]) if t is not None] == [0, 1, 2]
    assert table["cells"].to_pylist() == [1, 1, 1]


def test_a_failed_cell_costs_its_neighbours_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8))
    noise.save(folder / "a.jpg")
    data = (folder / "a.jpg").read_bytes()
    (folder / "b.jpg").write_bytes(data[: len(data) // 2])
    noise.save(folder / "c.jpg")
    table = _decode(config(folder, {"i": IMAGE, "j": IMAGE}))
    assert [p is not None for p in unpack(table[input_column("i", "pixels")])] == [True, False, True]
    failures = table["failures"].to_pylist()
    assert failures[0] == failures[2] == []
    assert [(f["feature"], f["stage"], f["kind"]) for f in failures[1]] == [
        ("i", "decode", "corrupt"),
        ("j", "decode", "corrupt"),
    ]
    assert table["cells"].to_pylist() == [2, 2, 2]
    # one decoding for two features of one picture; one for each try
    assert table["meter_decoded"].to_pylist() == [1, 1, 1]


def test_each_work_on_a_picture_is_watched_once_and_then_it_is_closed(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "ab":
        Image.new("RGB", (40, 40), "blue").save(folder / f"{name}.png")
    settings, features, table = bound(config(folder, {"i": IMAGE, "j": IMAGE}))
    probe, stage = ProbeStage(settings, features), DecodeStage(settings, features)
    probe.setup()
    stage.setup()
    works: list[tuple[int, str, str]] = []
    stage.context = StageContext(
        lambda task: works.append((task.row, task.step, task.feature)) or nullcontext()  # type: ignore[func-returns-value]
    )
    stage(probe(table))
    each = [("decode", "i"), ("tokenize", "i"), ("tokenize", "j")]
    assert works == [(row, *work) for row in (0, 1) for work in each]


def test_untimed_media_of_many_windows_are_decoded_once(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_clip(folder / "x.mp4", 3.0)
    Image.new("RGB", (40, 40), "blue").save(folder / "x.png")
    (folder / "x.txt").write_text("a blue picture")
    opened: list[str] = []
    original = opening.open_media
    monkeypatch.setattr(opening, "open_media", lambda blob, *rest: opened.append(blob.uri) or original(blob, *rest))
    settings = config(
        folder, {"v": VIDEO, "i": IMAGE, "t": text(models / "bert")}, window={"length_s": 1, "repeat_tokens": True}
    )
    table = _decode(settings)
    assert len(table) == 3
    assert len(opened) == 6  # three files: once to probe, once to decode
    pictures = unpack(table[input_column("i", "pixels")])
    assert all(np.array_equal(p, pictures[0]) for p in pictures)
    assert table["cells"].to_pylist() == [3, 3, 3]
    assert table["meter_decoded"].to_pylist() == [3, 1, 1]
    assert _decode(settings.model_copy(update={"window": settings.window.model_copy(update={"repeat_tokens": False})}))[
        "cells"
    ].to_pylist() == [3, 1, 1]


def test_a_window_between_timed_words_is_no_row(tmp_path: Path, models: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "s.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\none\n\n2\n00:00:05,000 --> 00:00:06,000\ntwo\n")
    table = _decode(config(folder, {"t": text(models / "bert")}, window={"length_s": 2}))
    assert table["start_s"].to_pylist() == [0, 4]
    assert table["cells"].to_pylist() == [1, 1]
    assert table["failures"].to_pylist() == [[], []]


def test_any_exception_of_a_tokenizer_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.tokenizers.patch import PatchTokenizer

    folder = tmp_path / "in"
    folder.mkdir()
    Image.new("RGB", (40, 40)).save(folder / "a.png")

    def broken(self: Any, media: Any) -> None:
        raise ZeroDivisionError("by design")

    monkeypatch.setattr(PatchTokenizer, "tokenize", broken)
    ((failure,),) = _decode(config(folder, {"i": IMAGE}))["failures"].to_pylist()
    assert (failure["stage"], failure["kind"], failure["message"]) == (
        "tokenize",
        "internal",
        "ZeroDivisionError: by design",
    )


@pytest.mark.parametrize("overflow", ["truncate", "windows"])
def test_an_inline_text_over_the_bound_is_a_failure(tmp_path: Path, models: Path, overflow: str) -> None:
    (tmp_path / "m.jsonl").write_text('{"id": "a", "t": "short"}\n{"id": "b", "t": "too many words"}\n')
    settings = config(
        tmp_path,
        {"t": text(models / "bert", overflow=overflow)},
        source={
            "kind": "manifest",
            "path": str(tmp_path / "m.jsonl"),
            "columns": {"id": "id", "inline_text": "t"},
        },
        decoders={"text": {"max_characters": 10}},
    )
    table = _decode(settings)
    reported = [[(one["kind"], one["message"]) for one in failures] for failures in table["failures"].to_pylist()]
    assert reported == [[], [("limit", "14 characters of text, over max_characters 10")]]


@pytest.mark.parametrize("overflow", ["truncate", "windows"])
def test_a_text_of_white_space_alone_is_empty_wherever_it_comes_from(
    tmp_path: Path, models: Path, overflow: str
) -> None:
    """Also where it has more tokens than a window: "\\r" is one in a tokenizer of bytes."""
    blank = "\r" * 40
    (tmp_path / "blank.txt").write_text(blank)
    (tmp_path / "m.jsonl").write_text(
        json.dumps({"id": "a", "t": blank}) + "\n" + json.dumps({"id": "b", "f": "blank.txt"}) + "\n"
    )
    features = {
        name: text(Path(checkpoint), overflow=overflow, max_length=9)
        for name, checkpoint in (("bert", models / "bert"), ("roberta", sound_fixtures.checkpoint("roberta").path))
    }
    for one in features:
        settings = config(
            tmp_path,
            {one: features[one]},
            source={
                "kind": "manifest",
                "path": str(tmp_path / "m.jsonl"),
                "columns": {"id": "id", "inline_text": "t", "text": "f"},
            },
        )
        table = _decode(settings)
        assert table["window"].to_pylist() == [0, 0]
        assert [[one["kind"] for one in reported] for reported in table["failures"].to_pylist()] == [
            ["empty"],
            ["empty"],
        ]


def test_setting_up_imports_what_the_first_row_needs(tmp_path: Path, models: Path) -> None:
    """Imports take seconds and hundreds of megabytes: within a row they would count against its limits."""
    (tmp_path / "in").mkdir()
    program = [sys.executable, "-m", "tests.stages.programs.print_late_imports"]
    command = [*program, str(tmp_path / "in"), str(models / "bert")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "[]", "[]"]


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("what", ["echo 10.0", "sleep 60"])
def test_a_picture_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """PostScript under a picture's name, a Ghostscript that writes a file, and one that hangs; as in a run."""
    folder, gs = tmp_path / "in", tmp_path / "bin" / "gs"
    for one in (folder, gs.parent):
        one.mkdir()
    gs.write_text(f"#!/bin/sh\necho $$ >> {tmp_path}/started\n{what}\n")
    gs.chmod(0o755)
    monkeypatch.setenv("PATH", str(gs.parent), prepend=":")
    (folder / "a.png").write_bytes(POSTSCRIPT)
    Image.new("RGB", (20, 20)).save(folder / "b.png")
    settings, features, table = bound(config(folder, {"i": IMAGE}))
    for stage in (ProbeStage(settings, features), DecodeStage(settings, features)):
        isolated = SandboxedStage(stage, LimitsConfig(row_seconds=5.0))
        table = isolated(table)
        isolated.close()
    failures = table["failures"].to_pylist()
    assert [[(one["stage"], one["kind"]) for one in some] for some in failures] == [[("probe", "unsupported")], []]
    assert "PostScript" in failures[0][0]["message"]
    assert not (tmp_path / "started").exists()
