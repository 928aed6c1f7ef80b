"""Writes tar files for the library `webdataset`.

One sample for each row: ``<key>.<column>.npy`` for each embedding, sequence of tokens and token ids, ``<key>.json``
with all other columns, and ``<key>.<column>.bin`` for columns of bytes. A null has no member of its own, and is null in
the JSON. Two exports of the same snapshot and columns have the same bytes.
"""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import storage
from pipeline.core.arrow import is_list, plain_value
from pipeline.core.errors import ConfigError, describe
from pipeline.dataset.collate.ragged import Ragged
from pipeline.export.destination import Destination
from pipeline.export.formats.keys import member_name, repeated_key, row_key
from pipeline.export.libraries import library
from pipeline.export.limits import ShardLimits, library_errors
from pipeline.export.rows import Rows

_ARRAYS = ("embedding", "tokens", "prefix_tokens", "token_ids")
"""Parts of features that are arrays of their own."""
_MODE = 0o644
_USER = "tessera"


def check(out: str) -> None:
    """Raises ``ConfigError`` if the library is missing."""
    library("webdataset")


def write(rows: Rows, destination: Destination, limits: ShardLimits) -> list[str]:
    """Writes ``shard-000000.tar`` and so on. Returns warnings. Raises what `export_dataset` raises."""
    samples = _samples(rows)
    number, sample = 0, next(samples, None)
    while sample is not None:
        url = storage.join(destination.url, f"shard-{number:06d}.tar")
        with library_errors("webdataset", destination.out), storage.AtomicFile(url) as file:
            sample = _write_shard(file, sample, samples, limits, int(rows.dataset.created.timestamp()))
        number += 1
    return []


def _write_shard(
    file: Any, sample: dict[str, Any] | None, samples: Iterator[dict[str, Any]], limits: ShardLimits, mtime: int
) -> dict[str, Any] | None:
    """Writes one tar file. Returns the first sample of the next one; None: there is none.

    Args:
        file: a binary file.
        sample: the first one.
        samples: those after it.
        limits: of the file.
        mtime: time of the members, in seconds since the epoch.
    """
    tar = library("webdataset").TarWriter(
        file, encoder=False, user=_USER, group=_USER, mode=_MODE, mtime=mtime, format="PAX_FORMAT"
    )
    keys: Counter[str] = Counter()
    with tar:
        while sample is not None:
            key = sample["__key__"]
            if keys[key]:  # no run writes a row twice
                sample["__key__"] = repeated_key(key, keys[key])
            keys[key] += 1
            tar.write(sample)
            sample = next(samples, None)
            if file.tell() >= limits.bytes or keys.total() == limits.rows:
                break
    return sample


def _samples(rows: Rows) -> Iterator[dict[str, Any]]:
    """Yields each row as member -> bytes."""
    parts = rows.parts
    arrays = {name: ".npy" for name in rows.columns if parts.get(name) in _ARRAYS}
    members = _members(arrays | {name: ".bin" for name in rows.columns if _is_bytes(rows.schema, name)})
    others = [name for name in rows.columns if name not in members]
    for batch in rows.batches(extra=("sample_id", "window")):
        cells = {name: _cells(name, batch.column(name)) for name in members}
        plain = {name: _json_values(batch.column(name)) for name in others}
        ids = batch.column("sample_id").cast(pa.binary()).to_pylist()
        windows = batch.column("window").to_pylist()
        for i in range(len(batch)):
            found = {name: column[i] for name, column in cells.items()}
            values = {name: found[name] if name in found else plain[name][i] for name in rows.columns}
            yield {
                "__key__": row_key(ids[i], windows[i]),
                **{members[name]: value for name, value in found.items() if value is not None},
                "json": _json({name: value for name, value in values.items() if name in plain or value is None}),
            }


def _members(columns: Mapping[str, str]) -> dict[str, str]:
    """Returns column -> member. Raises ``ConfigError`` if `webdataset`, which ignores case, would mix two up.

    Args:
        columns: column -> extension.
    """
    found: dict[str, str] = {}
    taken: dict[str, str] = {}
    for name, extension in columns.items():
        member = member_name(name) + extension
        if member.lower() in taken:
            what = f"{taken[member.lower()]!r} and {name!r} are one name in a WebDataset, which ignores case"
            raise ConfigError("--columns", what, "one of them")
        taken[member.lower()] = name
        found[name] = member
    return found


def _is_bytes(schema: pa.Schema, name: str) -> bool:
    kind = schema.field(name).type
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _cells(name: str, array: pa.Array) -> list[bytes | None]:
    """Returns the members of a column: `.npy` files, or bytes as they are; None for null."""
    if not is_list(array.type):
        return list(array.to_pylist())
    inner = array.type.value_type
    try:
        ragged = Ragged.of_array(array, inner.list_size if pa.types.is_fixed_size_list(inner) else None)
    except pa.ArrowException as error:  # a null in a vector
        raise ConfigError(
            "columns", f"column {name!r} cannot be read ({describe(error)})", "restore the shards, or leave it out"
        ) from error
    bounds = zip(ragged.offsets[:-1].tolist(), ragged.offsets[1:].tolist(), ragged.valid.tolist(), strict=True)
    return [_npy(ragged.values[start:end]) if is_valid else None for start, end, is_valid in bounds]


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=False)
    return file.getvalue()


def _json_values(array: pa.Array) -> list[Any]:
    """Returns the values of a column as values for JSON."""
    kind = array.type
    while is_list(kind):
        kind = kind.value_type
    is_simple = (pa.types.is_primitive(kind) and not pa.types.is_temporal(kind)) or pa.types.is_string(kind)
    return list(array.to_pylist()) if is_simple else [plain_value(one) for one in array]


def _json(values: dict[str, Any]) -> bytes:
    """Returns a JSON object in ASCII. NaN and infinity are written as Python's `json` reads them."""
    return json.dumps(values, default=_text).encode("ascii")


def _text(value: Any) -> str:
    return base64.b64encode(value).decode("ascii") if isinstance(value, bytes) else str(value)
