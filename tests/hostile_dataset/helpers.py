"""What the tests of hostile datasets share: changes of a good dataset, and what users do with it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from pipeline import dataset
from pipeline.core.errors import TesseraError
from pipeline.dataset import maintenance
from tests.support.dataset_fixtures import RUNS, night, write

Change = Callable[[dict[str, Any]], object]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def line(error: BaseException) -> str:
    """The message, which is one line that a terminal can show."""
    text = str(error)
    assert text.isprintable(), text
    assert len(text) < 1200, text
    return text


def assert_reported(call: Callable[[], object], *words: str) -> None:
    with pytest.raises(TesseraError) as caught:
        call()
    assert all(word in line(caught.value) for word in words), caught.value


def console() -> Console:
    return Console(file=io.StringIO())


def newest(out: Path) -> Path:
    return max((out / "v1" / "_snapshots").iterdir())


def change(path: Path, how: Change) -> None:
    values = json.loads(path.read_text())
    how(values)
    path.write_text(json.dumps(values))


def extract(out: Path) -> None:
    night(out / "v1", RUNS[8], ["new"])


def _read(out: Path) -> None:
    found = dataset.open(str(out))
    found.to_arrow().to_pylist()
    found.failures().to_pylist()


DOES: dict[str, Callable[[Path], object]] = {
    "read": _read,
    "compact": lambda out: maintenance.compact(str(out)),
    "rollback": lambda out: maintenance.rollback(str(out), 1),
    "forget": lambda out: maintenance.forget(str(out), ["a"]),
    "vacuum": lambda out: maintenance.vacuum(str(out), 0),
    "extract": extract,
}


def rewrite(out: Path, how: Callable[[pa.Table], pa.Table]) -> Path:
    """Change the newest shard."""
    path = out / "v1" / json.loads(newest(out).read_text())["shards"][-1]["path"]
    table = how(pq.read_table(path))
    pq.write_table(table, path)
    change(newest(out), lambda s: s["shards"][-1].update(rows=len(table)))
    return path


def change_footer(out: Path, text: str | bytes) -> Path:
    data = text if isinstance(text, bytes) else text.encode()
    return rewrite(out, lambda table: table.replace_schema_metadata({b"tessera": data}))


FEATURE = {"modality": "image", "emit": ["embedding", "tokens"], "model": "m", "dim": 3, "token_dim": 4}


def interrupt(out: Path) -> None:
    """A run that was killed: announced, with a task's record and a pending file."""
    root = out / "v1"
    write(root, RUNS[7], ["b"], replaces=True)
    (root / "_running").mkdir(exist_ok=True)
    (root / "_running" / f"{RUNS[7]}.json").write_text(json.dumps({"base": 4, "identity": "identity"}))
    (root / "_empty").mkdir(exist_ok=True)
