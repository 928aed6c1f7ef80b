"""A stage in another process for the imports that it spares: its errors are raised, and so is its death."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pyarrow as pa
import pytest

from pipeline.core.errors import ProcessDied
from pipeline.sandbox import ForkServer, SubprocessStage
from tests.sandbox import doubles
from tests.sandbox.doubles import Plain


@pytest.fixture
def address() -> Iterator[str]:
    with ForkServer(doubles.prepare, "colorsys") as started:
        yield started.address


def test_it_maps_what_its_stage_maps(address: str) -> None:
    stage = SubprocessStage(Plain(), address)
    stage.setup()
    reported = stage(pa.table({"do": ["pid"]}))["pid"].to_pylist()
    assert reported != [os.getpid()]
    assert stage(pa.table({"do": ["pid"]}))["pid"].to_pylist() == reported
    with pytest.raises(ValueError, match="a defect"):
        stage(pa.table({"do": ["raise"]}))
    stage.close()


def test_its_death_is_told_and_nobody_blamed(address: str) -> None:
    stage = SubprocessStage(Plain(), address)
    stage.setup()
    with pytest.raises(ProcessDied, match="SIGSEGV"):
        stage(pa.table({"do": ["segfault"]}))


def test_what_its_setup_raises_is_raised(address: str) -> None:
    with pytest.raises(ImportError, match="no module named 'codec'"):
        SubprocessStage(Plain("raise"), address).setup()
