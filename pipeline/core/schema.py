"""Columns of a dataset: names, Arrow types and units; and the version of this contract."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import pyarrow as pa

from pipeline.core.errors import ConfigError

CONTRACT = 2
"""Version of the dataset's format; increased when an older reader would misread a dataset.

2: failures are in `_failures/`, whose underscore hides them from other readers.
"""

Emit = Literal["embedding", "tokens", "prefix_tokens", "token_ids"]

ROLES = ("text", "image", "video", "audio", "other")
"""Roles of a sample's files. The extension of a file determines its role; ``other`` for an unknown extension."""

LISTING = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("source_version", pa.string(), nullable=False),
        *(pa.field(f"{role}_uri", pa.string()) for role in ROLES),
        pa.field("inline_text", pa.string()),
        pa.field("forbidden", pa.bool_()),
        pa.field("refused", pa.string()),
    ]
)
"""Listing of a source: one row per sample, followed by passthrough columns under their own names.

``forbidden``: true if the URI of one of its files is outside of what the source allows, otherwise null.
``refused``: the reason, one line without secrets, why a row of a manifest names no sample; its ``sample_id`` is the
place of the row then. Null for samples.
"""

FIXED = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("window", pa.int32(), nullable=False),
        pa.field("start_s", pa.float64()),
        pa.field("end_s", pa.float64()),
        pa.field("source_version", pa.string(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
    ]
)
"""Columns that every row of a dataset has."""

FAILURES = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("window", pa.int32(), nullable=False),
        pa.field("source_version", pa.string(), nullable=False),
        pa.field("feature", pa.string()),
        pa.field("uri", pa.string()),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field("row_written", pa.bool_(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
    ]
)
"""Failures of a run. ``feature`` is null if the file could not be identified, so that no feature applied."""

EMPTY_WINDOWS = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("window", pa.int32(), nullable=False),
        pa.field("source_version", pa.string(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
    ]
)
"""Windows without content for any feature."""

METERS = (
    "probe_s",
    "decode_s",
    "tokenize_s",
    "encode_s",
    "bytes_read",
    "requests",
    "retries",
    "decoded",
    "bytes_moved",
)
"""Costs of a row so far: seconds per stage, bytes read, requests for parts of remote files and those among them that
repeated a failed one, decoding calls, bytes moved between stages.

They are columns of the row, so that a task which is retried counts once.
"""

UNIT = "/unit"
"""Column with the name of the unit of work that a row comes from, between the stages. No column of a manifest can have
such a name."""

STORED = {"float32": pa.float32(), "float16": pa.float16()}
"""Name of a stored dtype -> Arrow type."""


def column(feature: str, part: str) -> str:
    """Returns the name of the column with one part (``embedding``, ``tokens``...) of a feature."""
    return f"{feature}_{part}"


def column_list(given: Sequence[str], known: Collection[str], setting: str) -> list[str]:
    """Returns the names of columns that an option names, each once.

    Args:
        given: names, or several names with commas between them.
        known: the columns that there are.
        setting: the name of the option in errors.

    Raises:
        ConfigError: there is no such column.
    """
    parts = [[one] if one in known else [part.strip() for part in one.split(",")] for one in given]
    names = list(dict.fromkeys(name for part in parts for name in part if name))
    for name in names:
        if name not in known:
            raise ConfigError(setting, f"there is no column {name!r}", f"one of: {', '.join(known)}")
    return names


def feature_fields(
    feature: str,
    emit: tuple[str, ...],
    token_dim: int | None,
    embedding_dtype: str,
    token_dtype: str,
    timed: bool,
    fixed_dim: int = -1,
) -> list[pa.Field]:
    """Returns the columns of one feature, with their stored types.

    Args:
        emit: parts of the feature that are stored.
        token_dim: values per token; None if no tokens are stored.
        timed: the tokens have times.
        fixed_dim: length of embeddings that are stored as fixed-size lists; -1: variable lists.
    """
    fields = []
    if "embedding" in emit:
        fields.append(pa.field(column(feature, "embedding"), pa.list_(STORED[embedding_dtype], fixed_dim)))
    for part in ("tokens", "prefix_tokens"):
        if part in emit:
            assert token_dim is not None
            fields.append(pa.field(column(feature, part), pa.list_(pa.list_(STORED[token_dtype], token_dim))))
    if "token_ids" in emit:
        fields.append(pa.field(column(feature, "token_ids"), pa.list_(pa.int32())))
    if "tokens" in emit or "token_ids" in emit:
        fields.append(pa.field(column(feature, "grid"), pa.list_(pa.int32())))
        if timed:
            fields.append(pa.field(column(feature, "times"), pa.list_(pa.float64())))
    return fields
