"""Faults produced for real in the child: each costs its feature of its row, and nothing else differs."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from pipeline.core.arrow import unpack
from pipeline.sandbox import LimitsConfig, SandboxedStage
from pipeline.stages.decode import DecodeStage, input_column
from pipeline.stages.probe import ProbeStage
from pipeline.stages.rows import put
from tests.sandbox.conftest import FORKED, Isolate, probed
from tests.sandbox.faulty_media import FaultyDecode, FaultyProbe
from tests.sandbox.plain_stages import Greedy, Plain
from tests.stages.media_fixtures import AUDIO, IMAGE, VIDEO, bound, config, write_clip
from tests.support import faulty
from tests.support.faulty import Fault

TIGHT = LimitsConfig(row_seconds=5.0, memory_bytes=256 << 20)
METERS = ["meter_probe_s", "meter_decode_s", "meter_tokenize_s"]
EXPECTED = {
    "abort": ("crash", "the decoder's process died while decoding (SIGABRT)"),
    "segfault": ("crash", "the decoder's process died while decoding (SIGSEGV)"),
    "exit": ("crash", "the decoder's process ended itself while decoding (exit code 3)"),
    "sysexit": ("crash", "the decoder's process ended itself while decoding (exit code 3)"),
    "gil": ("timeout", "decoding took longer than 5 s"),
    "regex": ("timeout", "decoding took longer than 5 s"),
    "spin": ("timeout", "decoding took longer than 5 s"),
    "pages": ("memory", "decoding took more than 0.25 GiB of memory"),
    "arrays": ("memory", None),  # whichever of the two limits it meets first
    "atonce": ("memory", None),
    "untouched": ("memory", "MemoryError: malloc returned NULL"),
    "kill": ("memory", "the decoder's process was killed while decoding: is memory short?"),
}


def _run(stage: Any, table: pa.Table) -> pa.Table:
    stage.setup()
    return stage(table)


def _failures(table: pa.Table) -> dict[str, list[tuple[str, str, str, str]]]:
    rows = zip(table["sample_id"].to_pylist(), table["failures"].to_pylist(), strict=True)
    return {
        sample: [(f["feature"], f["stage"], f["kind"], f["message"]) for f in failures] for sample, failures in rows
    }


def _same(table: pa.Table, reference: pa.Table) -> None:
    """Equal but for what it cost (a table in parts opens a file twice), whatever the order of columns."""
    meters = {name for name in reference.column_names if name.startswith("meter_")}
    names = sorted(set(reference.column_names) - meters)
    assert sorted(set(table.column_names) - meters) == names
    differing = [name for name in names if table[name].to_pylist() != reference[name].to_pylist()]
    assert differing == []


@pytest.mark.parametrize(
    ("isolated", "faults"),
    [
        ("forked", EXPECTED),
        ("alone", ("abort", "gil", "untouched")),
        pytest.param("alone", EXPECTED, marks=pytest.mark.slow),
    ],
    indirect=["isolated"],
    ids=["forked", "alone", "alone, all"],
)
def test_every_fault_costs_its_feature_of_its_row(folder: Path, isolated: Isolate, faults: Iterable[str]) -> None:
    """Of processes that start by themselves, one fault of each mechanism is enough for every day."""
    for name in faults:
        shutil.copy(folder / "b.png", folder / f"bad-{name}.png")
    settings, features, rows = probed(config(folder, {"i": IMAGE}))
    done = _run(isolated(FaultyDecode(settings, features), TIGHT), rows)
    reference = _run(DecodeStage(settings, features), rows)
    reported = _failures(done)
    for name in faults:
        kind, message = EXPECTED[name]
        failed = reported.pop(f"bad-{name}.png")
        assert [one[:3] for one in failed] == [("i", "decode", kind)], name
        assert message is None or {one[3] for one in failed} == {message}
    assert reported == {f"{letter}.png": [] for letter in "bcde"}
    assert done["cells"].to_pylist() == [1] * len(rows)
    assert done["sample_id"].to_pylist() == rows["sample_id"].to_pylist()
    good = pa.array([not name.startswith("bad") for name in rows["sample_id"].to_pylist()])
    _same(done.filter(good), reference.filter(good))


@FORKED
def test_a_fault_that_does_not_come_again_is_nobody_s(folder: Path, isolated: Isolate) -> None:
    for name in ("abort", "kill"):
        shutil.copy(folder / "b.png", folder / f"bad-{name}-once.png")
    settings, features, rows = probed(config(folder, {"i": IMAGE}))
    _same(_run(isolated(FaultyDecode(settings, features), TIGHT), rows), _run(DecodeStage(settings, features), rows))
    assert len(list(folder.glob("*.tried"))) == 2


@FORKED
def test_a_fault_while_a_file_is_closed_is_its_own(folder: Path, isolated: Isolate) -> None:
    """A picture is closed as soon as it is decoded, a video with its last window."""
    shutil.copy(folder / "b.png", folder / "bad-abort-closing.png")
    write_clip(folder / "bad-segfault-closing.mp4", 1.0)
    settings, features, rows = probed(config(folder, {"i": IMAGE, "v": VIDEO}))
    reported = _failures(_run(isolated(FaultyDecode(settings, features), TIGHT), rows))
    assert [one[2] for one in reported.pop("bad-abort-closing.png")] == ["crash"]
    assert [one[2] for one in reported.pop("bad-segfault-closing.mp4")] == ["crash"]
    assert set(map(len, reported.values())) == {0}


def test_memory_that_a_stage_keeps_or_takes_for_itself_is_no_work_s() -> None:
    """Of 64 MiB and a quarter, in a work: what earlier works keep does not count, nor what is taken after them."""
    stage = SandboxedStage(Greedy(), LimitsConfig(memory_bytes=64 << 20))
    for do in (["keep 50", "wait", "keep 50", "column", "take 300"], ["take 300", "keep 50"], ["keep 50", "column"]):
        assert _run(stage, pa.table({"do": do}))["do"].to_pylist() == do
    with pytest.raises(MemoryError):
        stage(pa.table({"do": ["keep 200"]}))
    assert len(stage(pa.table({"do": ["take 300"]}))) == 1


@FORKED
def test_probes_are_isolated_too(folder: Path, isolated: Isolate) -> None:
    for name in ("segfault", "gil"):
        shutil.copy(folder / "b.png", folder / f"bad-{name}.png")
    write_clip(folder / "clip.mp4", 1.0)
    shutil.copy(folder / "b.png", folder / "clip.png")
    (folder / "clip.png").rename(folder / "bad-abort.png")
    settings, features, listed = bound(config(folder, {"i": IMAGE, "j": IMAGE, "v": VIDEO}))
    rows = _run(isolated(FaultyProbe(settings, features), TIGHT), listed)
    reference = _run(ProbeStage(settings, features), listed)
    assert rows.schema.equals(reference.schema)
    reported = _failures(rows)
    died, late = "the decoder's process died while opening", "opening took longer than 5 s"
    for name, kind, message in (
        ("abort", "crash", f"{died} (SIGABRT)"),
        ("segfault", "crash", f"{died} (SIGSEGV)"),
        ("gil", "timeout", late),
    ):
        failed = [(feature, "probe", kind, message) for feature in ("i", "j")]
        assert reported.pop(f"bad-{name}.png") == failed
    assert set(map(len, reported.values())) == {0}
    good = pa.array([not name.startswith("bad") for name in reference["sample_id"].to_pylist()])
    _same(rows.filter(good), reference.filter(good))
    assert rows["final"].to_pylist() == [True] * len(reference)


def test_time_that_a_storage_takes_is_not_the_file_s(folder: Path, tmp_path: Path) -> None:
    """It is tried again by the next run, where a file that is too slow is not."""
    faulty.register()
    faulty.plan(folder, {"c.png": Fault("open", "reset")})
    source = {"kind": "files", "path": f"faulty://{folder}", "schemes": ["faulty"]}
    settings, features, listed = bound(config(folder, {"i": IMAGE}, source=source))
    limits = LimitsConfig(row_seconds=1.0)
    rows = _run(SandboxedStage(ProbeStage(settings, features), limits), listed)
    reported = _failures(rows)
    late = "opening took longer than 1 s: its storage failed and was asked again"
    assert reported.pop("c.png") == [("i", "probe", "io", late)]
    assert set(map(len, reported.values())) == {0}


def test_a_healthy_run_gives_the_same_tables(data: Path, tmp_path: Path, starts: list[float]) -> None:
    """Real media of three modalities, and broken files among them."""
    folder = tmp_path / "in"
    folder.mkdir()
    for pattern, count in (("images/*.*", 25), ("videos/*.mp4", 5), ("audio/*.*", 12), ("bad/*.*", 25)):
        for path in sorted(path for path in data.glob(pattern) if path.stat().st_size < 2 << 20)[:count]:
            shutil.copy(path, folder)
    features = {"i": IMAGE, "v": VIDEO, "a": AUDIO}
    settings, bound_features, listed = bound(config(folder, features, window={"length_s": 2}))
    rows = _run(ProbeStage(settings, bound_features), listed)
    _same(_run(SandboxedStage(ProbeStage(settings, bound_features), LimitsConfig()), listed), rows)
    plain = DecodeStage(settings, bound_features)
    isolated = SandboxedStage(DecodeStage(settings, bound_features), LimitsConfig())
    plain.setup()
    held = []
    for start in range(0, len(rows), 16):
        block = rows.slice(start, 16)
        held.append((isolated(block), plain(block)))
    for mine, reference in held:  # compared at the end: a table must not change while later ones are made
        _same(mine, reference)
    assert sum(len(mine) for mine, _ in held) == len(rows) > 40
    assert len(starts) == 2


@FORKED
def test_a_file_that_fails_in_every_window_is_given_up(tmp_path: Path, starts: list[float], isolated: Isolate) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_clip(folder / "bad-segfault.mp4", 12.0)
    write_clip(folder / "good.mp4", 4.0)
    settings, features, rows = probed(config(folder, {"v": VIDEO}, window={"length_s": 1}))
    stage = isolated(FaultyDecode(settings, features), TIGHT)
    done = _run(stage, rows)
    failures = [row for row in done["failures"].to_pylist() if row]
    died = "the decoder's process died while decoding (SIGSEGV)"
    untried = f"{died}, as 3 others of this file: not tried"
    assert [one["message"] for (one,) in failures] == [died] * 3 + [untried] * 9
    assert len(starts) == 1 + 2 * 3
    arrays = unpack(done[input_column("v", "pixels")])
    assert [array is not None for array in arrays] == [False] * 12 + [True] * 4


def test_successes_between_keep_a_file_from_being_given_up() -> None:
    """Strikes count in a row: what ends well wipes them out."""
    from pipeline.sandbox.process import WorkerExit
    from pipeline.sandbox.tasks import TaskRecord

    stage = SandboxedStage(Plain(), TIGHT)
    for part in (1, 2, 3, 4):
        death = WorkerExit(TaskRecord(1, 0, "decode", (b"file", part), 0), "crash", "died", over_limit=False)
        stage._blame(death, ("crash", "died"))
        if part == 2:
            stage.strikes.pop(b"file")
    assert list(stage.refused) == [(b"file", part) for part in (1, 2, 3, 4)]


@FORKED
def test_what_belongs_to_every_window_fails_once(tmp_path: Path, starts: list[float], isolated: Isolate) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_clip(folder / "bad-gil.mp4", 6.0)
    Image.new("RGB", (40, 40)).save(folder / "bad-gil.png")
    settings, features, rows = probed(
        config(folder, {"i": IMAGE, "v": VIDEO}, window={"length_s": 1, "repeat_tokens": True})
    )
    assert len(rows) == 6
    rows = put(rows, "video_uri", pa.nulls(6, pa.string()))
    reported = _run(isolated(FaultyDecode(settings, features), TIGHT), rows)["failures"].to_pylist()
    assert [[one["kind"] for one in row] for row in reported] == [["timeout"]] * 6
    assert len(starts) == 2


@FORKED
def test_a_child_killed_between_two_tables_is_replaced(folder: Path, starts: list[float], isolated: Isolate) -> None:
    settings, features, rows = probed(config(folder, {"i": IMAGE}))
    stage = isolated(DecodeStage(settings, features), TIGHT)
    before = _run(stage, rows)
    assert stage.child is not None
    os.kill(stage.child.process.pid, signal.SIGKILL)
    _same(stage(rows), before)
    assert len(starts) == 2
    assert stage.refused == {}
