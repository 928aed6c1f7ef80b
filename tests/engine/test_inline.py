"""The engine in this process: blocks through stages, split where a spec says so. See also `test_contract`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.config.models import ComputeConfig
from pipeline.core.errors import TesseraError
from pipeline.dataset.shards.write_result import Written
from pipeline.engine import build
from pipeline.engine.inline import InlineEngine
from pipeline.engine.spec import PipelineSpec, SinkSpec, StageSpec, WorkersSpec


class Reads:
    """Makes a row for each sample of its unit."""

    def setup(self) -> None: ...

    def __call__(self, table: pa.Table) -> pa.Table:
        count = sum(table["group"].to_pylist())
        return pa.table(
            {"n": range(count), "final": [True] * count, "failures": pa.array([[]] * count, pa.list_(pa.string()))}
        )


class Notes:
    """Hands tables on, and notes their rows."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def setup(self) -> None: ...

    def __call__(self, table: pa.Table) -> pa.Table:
        self.sizes.append(len(table))
        return table


class Pairs:
    """A splitter that makes parts of two rows."""

    def split(self, table: pa.Table) -> list[pa.Table]:
        return [table.slice(start, 2) for start in range(0, len(table), 2)]


class Writer:
    def __init__(self) -> None:
        self.tables: list[pa.Table] = []
        self.closed, self.aborted = False, False

    def add(self, table: pa.Table) -> None:
        self.tables.append(table)

    def close(self) -> Written:
        self.closed = True
        return Written(rows=sum(map(len, self.tables)))

    def abort(self) -> None:
        self.aborted = True


def test_blocks_go_through_all_stages_in_the_sizes_of_the_spec() -> None:
    writer, first, second = Writer(), Notes(), Notes()
    splitter: Any = Pairs()
    stages = (
        StageSpec("read", Reads(), "a", block_rows=3),
        StageSpec("first", first, "a"),
        StageSpec("second", second, "a", splitter=splitter),
    )
    opened: list[str] = []

    def open_writer(name: str) -> Any:
        opened.append(name)
        return writer

    spec = PipelineSpec(stages, {"a": WorkersSpec("tasks")}, SinkSpec(open_writer, "r", 1), 32)
    done = InlineEngine().execute(spec, [("u", 5, 5), ("u", 3, 3)], 8, None)
    assert first.sizes == [3, 2, 3]
    assert second.sizes == [2, 1, 2, 2, 1]
    assert (done.written.rows, writer.closed, writer.aborted) == (8, True, False)
    assert opened == ["r-000000"]
    assert done.written.write_s > 0
    assert done.workers is None


def test_what_breaks_leaves_nothing_written() -> None:
    class Breaks(Notes):
        def __call__(self, table: pa.Table) -> pa.Table:
            raise ValueError("broken")

    writer: Any = Writer()
    stages = (StageSpec("read", Reads(), "a"), StageSpec("breaks", Breaks(), "a"))
    spec = PipelineSpec(stages, {"a": WorkersSpec("tasks")}, SinkSpec(lambda name: writer, "r", 1), 32)
    with pytest.raises(TesseraError, match="the run r broke off: ValueError: broken"):
        InlineEngine().execute(spec, [("u", 1, 1)], 1, None)
    assert (writer.closed, writer.aborted) == (False, True)


def test_it_needs_no_ray(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = "import sys\nfrom pipeline.engine import build\nfrom pipeline.config import ComputeConfig\n"
    code += "build('inline', ComputeConfig()).check(); print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert build("inline", ComputeConfig()).gpus(None) == 0
