"""Writes datasets of many row groups with plain pyarrow: ragged rows, nulls and deletions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.schema import FIXED

RUN = "20260101T000000-0001"
D, W = 4, 3
"""Values of an embedding, and of a token vector."""
FEATURES = {
    "photo": {"modality": "image", "emit": ["embedding", "tokens"], "space": "s", "dim": D, "token_dim": W},
    "words": {"modality": "text", "emit": ["token_ids"], "space": "s"},
}
SCHEMA = pa.schema(
    [
        *FIXED,
        pa.field("number", pa.int64()),
        pa.field("label", pa.string()),
        pa.field("score", pa.float64()),
        pa.field("photo_embedding", pa.list_(pa.float32())),
        pa.field("photo_tokens", pa.list_(pa.list_(pa.float16(), W))),
        pa.field("photo_grid", pa.list_(pa.int32())),
        pa.field("words_token_ids", pa.list_(pa.int32())),
        pa.field("words_grid", pa.list_(pa.int32())),
    ]
)


def row(number: int) -> dict[str, Any]:
    """Returns a row. Every third has no photo, every fifth no words; numbers of tokens differ."""
    rng = np.random.default_rng(number)
    found: dict[str, Any] = dict.fromkeys(SCHEMA.names)
    found |= {"sample_id": f"s{number:05}", "window": 0, "source_version": "v", "run_id": RUN}
    found |= {"number": number, "label": None if number % 7 == 0 else f"l{number % 4}", "score": number / 8}
    if number % 3:
        tokens = number % 5
        found["photo_embedding"] = rng.standard_normal(D).astype(np.float32).tolist()
        found["photo_tokens"] = rng.standard_normal((tokens, W)).astype(np.float16).tolist()
        found["photo_grid"] = [1, 1, tokens]
    if number % 5:
        found["words_token_ids"] = rng.integers(0, 1000, number % 6).tolist()
        found["words_grid"] = [number % 6, 1, 1]
    return found


def write(
    out: Path,
    rows: Sequence[Mapping[str, Any]],
    shards: int = 3,
    group_rows: int = 16,
    deleted: Sequence[int] = (),
    snapshot: int = 1,
    schema: pa.Schema = SCHEMA,
    use_dictionary: bool = True,
) -> str:
    """Writes a dataset of one version and one snapshot. Returns its path.

    Args:
        out: the dataset.
        rows: of all shards, as evenly as possible.
        shards: number of files.
        group_rows: rows of a row group; the last one of each shard may have fewer.
        deleted: the ``number`` of rows that the snapshot deletes.
        snapshot: its number. The files of another snapshot of the dataset have other names.
        schema: of the rows.
        use_dictionary: whether columns are encoded with a dictionary, as far as pyarrow does so.
    """
    (out / "v1" / "data").mkdir(parents=True, exist_ok=True)
    (out / "v1" / "_snapshots").mkdir(exist_ok=True)
    lineage = {"contract": 1, "run_id": RUN, "features": FEATURES, "versions": {}}
    stored = schema.with_metadata({b"tessera": json.dumps(lineage).encode()})
    named = []
    for shard in range(shards):
        part = rows[len(rows) * shard // shards : len(rows) * (shard + 1) // shards]
        path = f"data/{RUN}-{snapshot}-{shard:03}.parquet"
        pq.write_table(
            pa.Table.from_pylist(list(part), stored),
            out / "v1" / path,
            row_group_size=group_rows,
            compression="zstd",
            use_dictionary=use_dictionary,
        )
        gone = [i for i, one in enumerate(part) if one["number"] in deleted]
        named.append({"path": path, "rows": len(part), "bytes": 1, "sha256": "0" * 64, "deleted": gone})
    commit = {"contract": 1, "snapshot": snapshot, "run_id": RUN, "created": "2026-01-01T00:00:00+00:00"}
    (out / "v1" / "_snapshots" / f"{snapshot:08}.json").write_text(
        json.dumps({**commit, "shards": named, "failures": []})
    )
    return str(out)
