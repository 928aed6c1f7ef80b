"""Datasets to export, and what the libraries read from the exports: one dict for each row, with values as stored."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import dataset
from tests.dataset.loading import written

SCHEMA = pa.schema(
    [
        *written.SCHEMA,
        pa.field("blob", pa.binary()),
        pa.field("when", pa.timestamp("us", tz="UTC")),
        pa.field("tags", pa.list_(pa.string())),
        pa.field("half", pa.list_(pa.float16())),
    ]
)
ARRAYS = ("photo_embedding", "photo_tokens", "words_token_ids")
DELETED = (0, 5, 31)


def row(number: int) -> dict[str, Any]:
    """Returns a row with values of every kind: text of any alphabet, NaN, large integers, bytes, times, nulls."""
    found = written.row(number)
    found["label"] = [None, "", "å\n\t\"日本'\\", "x" * 300][number % 4]
    found["score"] = [None, float("nan"), float("inf"), number / 3][number % 4]
    found["number"] = number if number % 9 else 2**62 + number
    found["blob"] = None if number % 2 else bytes(range(number % 7))
    found["when"] = None if number % 4 else 1_700_000_000_123_456 + number
    found["tags"] = [None, [], ["a", None, "b"]][number % 3]
    found["half"] = None if number % 5 else [number / 8, -1.5]
    found["start_s"], found["end_s"] = (None, None) if number % 2 else (number * 0.1, number * 0.1 + 5)
    return found


def write(out: Path, rows: int = 60, **options: Any) -> str:
    """Writes a dataset of ``rows`` rows. Returns its path."""
    found = [row(number) for number in range(rows)]
    for number, one in enumerate(found):  # `written` knows deleted rows by their number
        one["number"] = number
    return written.write(out, found, schema=SCHEMA, **options)


def stored(path: str, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Returns the rows of a dataset, as pyarrow has them."""
    return normal(dataset.open(path).to_arrow(columns).to_pylist())


def read_lance(out: str) -> list[dict[str, Any]]:
    import lance

    return normal(lance.dataset(out).to_table().to_pylist())


def read_datasets(out: str) -> list[dict[str, Any]]:
    from datasets import load_from_disk

    return normal(load_from_disk(out).with_format("arrow")[:].to_pylist())


def read_webdataset(out: str) -> list[dict[str, Any]]:
    """As `webdataset` decodes it; the JSON gives the columns, and members of their own their values."""
    found = []
    for sample in samples(out):
        values = dict(sample["json"])
        for member, value in sample.items():
            column, dot, extension = member.rpartition(".")
            if dot and extension in ("npy", "bin"):
                values[column] = value.tolist() if extension == "npy" else value
        found.append(values)
    return normal(found)


def samples(out: str) -> list[dict[str, Any]]:
    """Returns the decoded samples of a WebDataset, in the order of its files."""
    import webdataset

    shards = sorted(str(path) for path in Path(out).glob("*.tar"))
    if not shards:
        return []
    return list(webdataset.WebDataset(shards, shardshuffle=False, empty_check=False).decode())


READERS: dict[str, Callable[[str], list[dict[str, Any]]]] = {
    "webdataset": read_webdataset,
    "lance": read_lance,
    "datasets": read_datasets,
}


def normal(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns rows that can be compared: NaN equals NaN, times are text."""
    return [{name: _normal(value) for name, value in sorted(row.items())} for row in rows]


def _normal(value: Any) -> Any:
    if isinstance(value, float) and np.isnan(value):
        return "NaN"
    if hasattr(value, "isoformat"):
        return value.isoformat(sep=" ").replace("+00:00", "Z")
    return [_normal(one) for one in value] if isinstance(value, list) else value


def record(out: str) -> dict[str, Any]:
    """Returns the record that an export leaves in its folder."""
    found: dict[str, Any] = json.loads((Path(out) / ".tessera-export.json").read_text())
    return found
