"""Column names, Arrow types and units of a dataset; the version of this contract."""

from __future__ import annotations

from typing import Literal

import pyarrow as pa

CONTRACT = 2
"""Raised when an older reader would misread a dataset. 2: `_failures/`, whose underscore hides it from others."""

Emit = Literal["embedding", "tokens", "prefix_tokens", "token_ids"]

ROLES = ("text", "image", "video", "audio", "other")
"""Roles of a sample's files. A role is the extension's hint: ``other`` where the extension says nothing."""

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
"""What a source lists: one row per sample; passthrough columns follow under their own names. ``forbidden``: true where
a file of it lies outside of what the source allows, as far as its text says; null for all others. ``refused``: why a
row of a manifest names no sample (its place is the ``sample_id``), on one line without secrets; null for samples."""

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
"""Columns that every row has."""

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
"""``feature`` is null when nothing could be said of the file, so that no feature applied."""

EMPTY = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("window", pa.int32(), nullable=False),
        pa.field("source_version", pa.string(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
    ]
)
"""Windows that hold nothing any feature reads."""

METERS = ("probe_s", "decode_s", "tokenize_s", "encode_s", "bytes_read", "decoded", "bytes_moved")
"""What a row has cost so far: seconds, bytes read and bytes handed from stage to stage, decoding calls. They travel in
the row, so that a retried task is counted once and a report needs no other channel."""

STORED = {"float32": pa.float32(), "float16": pa.float16()}


def column(feature: str, part: str) -> str:
    return f"{feature}_{part}"


def feature_fields(
    feature: str,
    emit: tuple[str, ...],
    token_dim: int | None,
    embedding_dtype: str,
    token_dtype: str,
    timed: bool,
    fixed_dim: int = -1,
) -> list[pa.Field]:
    """The columns of one feature, in their stored types.

    Args:
        fixed_dim: of embeddings that are stored as lists of a fixed size; -1: as lists.
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
