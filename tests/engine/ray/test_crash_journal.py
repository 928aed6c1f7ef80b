"""A row at which an encoder's process dies costs itself; whatever else died at most costs time."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray
from PIL import Image

from pipeline import dataset, run
from pipeline.core.errors import DeviceFailed, SampleError, TesseraError
from pipeline.engine.ray.counter import RunCounter
from pipeline.engine.ray.crash_journal import _BLOCK_DEATHS, _DEVICE_FAILURES, CrashJournal, CrashJournalClient
from pipeline.run import pipeline
from pipeline.stages.encode import EncodeStage
from tests.engine.fragile_encoder import ABORT, DEVICE, ONCE, SEGFAULT, FragileEncode
from tests.stages.media_fixtures import IMAGE, config

OUTPUT_BYTES = 16_000
"""Ray passes on a block of so many bytes at once: before a process dies, parts of its block have been consumed."""


def _extracted(
    folder: Path,
    reds: list[int],
    encode: type[EncodeStage],
    block_rows: int = 5,
    block_bytes: int = 1 << 20,
    forks_from: Any = None,
) -> dict[str, Any]:
    """The report of a run over pictures of these reds, named by their number. Only encoding is what dies here."""
    (folder / "in").mkdir()
    for i, red in enumerate(reds):
        Image.new("RGB", (32, 32), (red, 0, 255)).save(folder / "in" / f"{i:02d}.png")
    settings = config(
        folder / "in",
        {"i": IMAGE},
        compute={"block_rows": block_rows},
        decoders={"limits": {"isolate": False, "block_bytes": block_bytes}},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "EncodeStage", encode)
        patch.setattr(ray.data.DataContext.get_current(), "target_max_block_size", OUTPUT_BYTES)
        return run.extract(
            replace(run.prepare(settings, False, None, "ray"), fork_server=forks_from), show_progress=False
        )


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("forked", "block_bytes"),
    [pytest.param(False, 1 << 20, marks=pytest.mark.slow), (True, 3 * 3 * 224 * 224)],
    ids=["whole blocks", "forked, three rows of a block at once"],
)
def test_rows_that_kill_the_encoder_cost_themselves(
    ray_session: Any, fork_server: Any, tmp_path: Path, forked: bool, block_bytes: int
) -> None:
    """Each death costs the start of a process, so the daily run has one of each kind."""
    bad = {3: ABORT, 9: DEVICE, 14: ONCE} | ({} if forked else {4: SEGFAULT})
    reds = [bad.get(i, i) for i in range(20)]
    report = _extracted(
        tmp_path, reds, FragileEncode, block_bytes=block_bytes, forks_from=fork_server if forked else None
    )
    assert report["failures_by_kind"] == {"crash": len(bad) - 1}
    found = dataset.open(str(tmp_path / "out"))
    reported = {row["sample_id"]: (row["stage"], row["message"]) for row in found.failures().to_pylist()}
    words = "the encoder's process died 2 times at it"
    device = f"{words} (RuntimeError: CUDA error: device-side assert triggered)"
    assert reported == {f"{i:02d}.png": ("encode", device if i == 9 else words) for i in bad if i != 14}
    rows = {row["sample_id"]: np.array(row["i_tokens"])[0, 0] for row in found.to_arrow().to_pylist()}
    assert {name: round(float(red) * 255) for name, red in rows.items()} == {
        f"{i:02d}.png": ONCE if i == 14 else i for i in range(20) if i == 14 or i not in bad
    }


@pytest.mark.timeout(240)
def test_a_device_that_fails_at_everything_ends_the_run(ray_session: Any, tmp_path: Path) -> None:
    """However few rows there are, in parts of a block: none is blamed."""
    with pytest.raises(TesseraError, match=r"features.i: the device failed \(RuntimeError: CUDA error: device-side"):
        _extracted(tmp_path, [DEVICE, DEVICE], FragileEncode, block_bytes=1)


@pytest.mark.timeout(240)
def test_models_that_kill_their_process_end_the_run(ray_session: Any, tmp_path: Path) -> None:
    class Unloadable(EncodeStage):
        def setup(self) -> None:
            os.abort()

    with pytest.raises(TesseraError, match="a process died 3 times while it loaded its models: is memory short"):
        _extracted(tmp_path, [1], Unloadable)


def test_deaths_are_counted_by_the_work_that_ran() -> None:
    journal = CrashJournal()
    assert journal.record_start("one") == ({}, {})
    journal.record_work("one", ("row", "i", "a", "0"))
    journal.record_work("two", ("block", "a", "0"))
    assert journal.record_start("one")[0] == {("row", "i", "a", "0"): 1}
    assert journal.record_start("one")[0] == {("row", "i", "a", "0"): 1}, "a death at nothing"
    journal.record_work("one", ("row", "i", "a", "0"))
    journal.record_work("two", None)
    assert journal.record_start("two")[0] == {("row", "i", "a", "0"): 1}, "it was idle"
    assert journal.record_start("one")[0] == {("row", "i", "a", "0"): 2}


def test_each_thread_of_a_process_has_its_own_work() -> None:
    """All that were at work when it died are suspected, and a failure that all of them tell of counts once."""
    journal = CrashJournal()
    journal.record_work("one", ("block", "a", "0"), 1)
    journal.record_work("one", ("block", "b", "0"), 2)
    journal.record_work("one", ("block", "c", "0"), 1)
    assert journal.record_start("one")[0] == {("block", "b", "0"): 1, ("block", "c", "0"): 1}
    journal.record_work("one", ("block", "b", "0"), 1)
    journal.record_work("one", ("block", "c", "0"), 2)
    assert journal.record_device_failure("one", "w", 1)
    assert journal.record_device_failure("one", "w", 2)
    assert journal.failures == 1
    assert journal.record_start("one")[1] == {("block", "b", "0"): "w", ("block", "c", "0"): "w"}
    assert journal.record_device_failure("one", "w", 2)
    assert journal.failures == 2


def test_a_device_is_given_up_where_nothing_ends_well() -> None:
    journal = CrashJournal()
    journal.record_work("one", ("setup", "one"))
    journal.record_work("one", None)
    assert [journal.record_device_failure("one", "w") for _ in range(3)] == [True, True, False], "nothing ever has"
    journal.record_work("one", ("block", "a", "0"))
    journal.record_work("one", ("block", "b", "0"))
    answers = [journal.record_device_failure("one", "w") for _ in range(_DEVICE_FAILURES + 1)]
    assert answers == [True] * _DEVICE_FAILURES + [False]
    journal.record_work("one", ("row", "i", "b", "0"))
    assert not journal.record_device_failure("one", "other words"), "a row of that block"
    journal.record_work("one", ("block", "b", "0"))
    assert journal.record_device_failure("one", "w"), "the row ended well"
    assert journal.record_start("one")[1][("row", "i", "b", "0")] == "other words"


def test_a_row_is_refused_after_the_second_death_alone(ray_session: Any) -> None:
    block = pa.table({"sample_id": ["a", "b"], "window": [0, 0]})
    counter = RunCounter()
    client = CrashJournalClient(counter.actor)
    assert not client.begin_block(block)
    assert not client.begin_block(block.slice(0, 0))
    for deaths in range(2):
        client = CrashJournalClient(counter.actor)
        assert client.is_suspect(block)
        assert not client.is_suspect(block.slice(1))
        assert not client.is_suspect(block.slice(0, 0))
        assert client.begin_block(block)
        assert not client.begin_block(block.slice(1))
        client.begin_row(0, "i", "a", 0)
        assert client.deaths.get(("row", "i", "a", "0"), 0) == deaths
    client = CrashJournalClient(counter.actor)
    with pytest.raises(SampleError, match="crash: the encoder's process died 2 times at it"):
        client.begin_row(0, "i", "a", 0)
    client.begin_row(0, "i", "a", 1)
    client.begin_row(0, "j", "a", 0)
    client.end_work()
    client = CrashJournalClient(counter.actor)
    assert ("row", "j", "a", "0") not in client.deaths
    for _ in range(_BLOCK_DEATHS - client.deaths["block", "a", "0"]):
        assert client.begin_block(block)
        client = CrashJournalClient(counter.actor)
    with pytest.raises(TesseraError, match="died 5 times at the block that begins with 'a', window 0, and at none"):
        client.begin_block(block)
    counter.close()
    with suppress(ray.exceptions.RayActorError):  # it was killed, not waited for
        while True:
            ray.get(counter.actor.read.remote())
    assert not client.report_device_failure("w"), "a counter that is gone answers nothing"
    assert issubclass(DeviceFailed, TesseraError)
