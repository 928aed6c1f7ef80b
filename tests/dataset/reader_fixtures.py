"""A dataset with every kind of column, written with plain pyarrow."""

from __future__ import annotations

import json
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.schema import FAILURES, FIXED

D, W = 6, 4
FEATURES = {
    "photo": {
        "modality": "image",
        "emit": ["embedding", "tokens"],
        "model": "tiny-clip",
        "model_type": "clip",
        "revision": None,
        "weights_sha256": "ab" * 32,
        "tokenizer": "patch",
        "processor": "CLIPImageProcessor",
        "space": "clip:ab",
        "normalized": True,
        "dim": D,
        "token_dim": W,
        "dtype": "float32",
        "embedding_dtype": "float32",
        "token_dtype": "float16",
        "prompt": None,
        "fingerprint": "f1",
    },
    "caption": {"modality": "text", "emit": ["embedding", "token_ids"], "space": "clip:ab", "dim": D, "token_dim": 8},
    "sound": {"modality": "audio", "emit": ["tokens"], "space": "w2v:cd", "token_dim": W, "from_the_future": 1},
}
SCHEMA = pa.schema(
    [
        *FIXED,
        pa.field("label", pa.string()),
        pa.field("score", pa.int64()),
        pa.field("caption_tokens", pa.int64()),  # a column of the corpus: the feature emits no tokens
        pa.field("photo_embedding", pa.list_(pa.float32())),
        pa.field("photo_tokens", pa.list_(pa.list_(pa.float16(), W))),
        pa.field("photo_grid", pa.list_(pa.int32())),
        pa.field("caption_embedding", pa.list_(pa.float32())),
        pa.field("caption_token_ids", pa.list_(pa.int32())),
        pa.field("caption_grid", pa.list_(pa.int32())),
        pa.field("sound_tokens", pa.list_(pa.list_(pa.float16(), W))),
        pa.field("sound_grid", pa.list_(pa.int32())),
        pa.field("sound_times", pa.list_(pa.float64())),
    ]
)
RUN = "20260101T000000-0001"


def row(i: int) -> dict[str, Any]:
    """Returns a row. Every third one has no photo, every fourth no caption; only every fifth has sound."""
    rng = np.random.default_rng(i)
    found: dict[str, Any] = dict.fromkeys(SCHEMA.names)
    found |= {"sample_id": f"s{i:03}", "window": 0, "source_version": "v", "run_id": RUN, "label": f"l{i % 2}"}
    found |= {"score": i if i % 2 else None, "caption_tokens": i}
    if i % 3:
        found["photo_embedding"] = rng.standard_normal(D).astype(np.float32).tolist()
        found["photo_tokens"] = rng.standard_normal((4, W)).astype(np.float16).tolist()
        found["photo_grid"] = [1, 2, 2]
    if i % 4:
        found["caption_embedding"] = rng.standard_normal(D).astype(np.float32).tolist()
        found["caption_token_ids"] = rng.integers(0, 1000, i % 7).tolist()
        found["caption_grid"] = [i % 7, 1, 1]
    if i % 5 == 0:
        found |= {"start_s": 2.0 * i, "end_s": 2.0 * i + 2}
        found["sound_tokens"] = rng.standard_normal((i % 6, W)).astype(np.float16).tolist()
        found["sound_times"] = (np.arange(i % 6) * 0.02).tolist()
        found["sound_grid"] = [i % 6, 1, 1]
    return found


ROWS = [row(i) for i in range(29)]
FAILED = [
    {
        "sample_id": "s003",
        "window": 0,
        "source_version": "v",
        "feature": "photo",
        "uri": "x.jpg",
        "stage": "decode",
        "kind": "corrupt",
        "message": "cut",
        "attempts": 1,
        "row_written": True,
        "run_id": RUN,
    }
]


def write(
    root: str, shards: tuple[int, ...] = (10, 1, 18), snapshot: int = 1, created: str = "2026-01-01T00:00:00+00:00"
) -> str:
    fs, path = fsspec.core.url_to_fs(root)
    for folder in ("data", "failures", "_snapshots"):
        fs.makedirs(f"{path}/{folder}", exist_ok=True)
    lineage = {"contract": 1, "run_id": RUN, "features": FEATURES, "versions": {"torch": "2.11.0"}}
    metadata = {b"tessera": json.dumps(lineage).encode()}
    named: dict[str, list[dict[str, Any]]] = {"shards": [], "failures": []}
    at = 0
    for number, count in enumerate(shards):
        table = pa.Table.from_pylist(ROWS[at : at + count], schema=SCHEMA.with_metadata(metadata))
        at += count
        with fs.open(f"{path}/data/{RUN}-{number:03}.parquet", "wb") as file:
            pq.write_table(table, file, row_group_size=4, compression="zstd", use_dictionary=False)
        named["shards"].append(
            {"path": f"data/{RUN}-{number:03}.parquet", "rows": count, "bytes": 1, "sha256": "0" * 64}
        )
    with fs.open(f"{path}/failures/{RUN}-0.parquet", "wb") as file:
        pq.write_table(pa.Table.from_pylist(FAILED, schema=FAILURES.with_metadata(metadata)), file)
    named["failures"].append({"path": f"failures/{RUN}-0.parquet", "rows": 1, "bytes": 1, "sha256": "0" * 64})
    commit = {"contract": 1, "snapshot": snapshot, "run_id": RUN, "created": created, **named}
    fs.pipe_file(f"{path}/_snapshots/{snapshot:08}.json", json.dumps(commit).encode())
    return root
