"""The memory of an export does not grow with the dataset."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core.schema import FIXED
from pipeline.export import FORMATS
from tests.support import ROOT

RUN = "20260101T000000-0001"
TOKENS, WIDTH, ROWS = 128, 256, 500
"""64 KiB of tokens a row, 32 MB a shard."""


def _write(out: Path, shards: int) -> Path:
    """Writes a dataset of tokens that no compression makes smaller."""
    feature = {"modality": "image", "emit": ["tokens"], "model": "m", "space": "s", "token_dim": WIDTH}
    lineage = {"contract": 2, "run_id": RUN, "features": {"f": feature}, "versions": {}}
    tokens = pa.field("f_tokens", pa.list_(pa.list_(pa.float16(), WIDTH)))
    schema = pa.schema([*FIXED, tokens], {b"tessera": json.dumps(lineage).encode()})
    (out / "v1" / "data").mkdir(parents=True)
    (out / "v1" / "_snapshots").mkdir()
    named = []
    for shard in range(shards):
        values = np.random.default_rng(shard).standard_normal(ROWS * TOKENS * WIDTH, np.float32).astype(np.float16)
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(values), WIDTH)
        lists = pa.ListArray.from_arrays(pa.array(np.arange(ROWS + 1) * TOKENS, pa.int32()), vectors)
        ids = pa.array([f"s{shard}-{number}" for number in range(ROWS)])
        same = [pa.array([value] * ROWS, kind) for value, kind in ((0, pa.int32()), *[(None, pa.float64())] * 2)]
        texts = [pa.array([value] * ROWS) for value in ("v", RUN)]
        path = f"data/{RUN}-{shard:03}.parquet"
        table = pa.Table.from_arrays([ids, *same, *texts, lists], schema=schema)
        pq.write_table(table, out / "v1" / path, row_group_size=100, use_dictionary=False)
        named.append({"path": path, "rows": ROWS, "bytes": 1, "sha256": "0" * 64})
    snapshot = {"contract": 2, "snapshot": 1, "run_id": RUN, "created": "2026-01-01T00:00:00+00:00"}
    document = {**snapshot, "shards": named, "failures": []}
    (out / "v1" / "_snapshots" / "00000001.json").write_text(json.dumps(document))
    return out


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_ten_times_the_rows_take_the_same_memory(tmp_path: Path, format: str) -> None:
    peaks = []
    for shards in (2, 20):
        path = _write(tmp_path / f"ds{shards}", shards)
        command = [
            sys.executable,
            "-m",
            "tests.export.programs.measured_export",
            str(path),
            str(tmp_path / str(shards)),
        ]
        done = subprocess.run([*command, format], cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
        peaks.append(int(done.stdout))
    print(format, peaks)
    assert peaks[1] < peaks[0] + 150, peaks  # the rows that were added take 590 MB
