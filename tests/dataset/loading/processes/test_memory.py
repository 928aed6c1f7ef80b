"""The memory of a process that reads stays near ``max_open_bytes``, however large the dataset is."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline import dataset
from tests.dataset.loading import written
from tests.support import ROOT

GROUPS, GROUP_ROWS, ROW_BYTES = 64, 16, 256 << 10
"""256 MiB in row groups of 4 MiB."""
ROWS = GROUPS * GROUP_ROWS
ALLOWED_MB = 160
"""Above the limit: 85 to 125 MB were measured with limits of 32 to 2,048 MiB. The libraries that the first batch loads,
row groups that two threads decode, copies of batches of 2 MiB, and freed memory that Arrow keeps."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    values = np.random.default_rng(0).standard_normal(ROWS + ROW_BYTES // 4, np.float32)
    rows = [{**written.row(i), "photo_embedding": values[i : i + ROW_BYTES // 4]} for i in range(ROWS)]
    folder = tmp_path_factory.mktemp("large")
    return written.write(folder, rows, shards=8, group_rows=GROUP_ROWS, use_dictionary=False)


def read(path: str, limit_mb: int, datasets: int = 1, streams: int = 0) -> Any:
    """Returns what the program printed."""
    module = "tests.dataset.loading.processes.programs.read_within_limit"
    arguments = [path, str(datasets), str(limit_mb << 20), str(streams)]
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=200, check=True
    )
    found = json.loads(done.stdout)
    print(limit_mb, found)
    assert found["rows"] == ROWS
    return found


@pytest.mark.slow
def test_peaks_stay_near_the_limit_and_grow_with_it(path: str) -> None:
    """With the default number of streams, which follows from the limit."""
    low, high = (read(path, limit)["peak_mb"] for limit in (40, 160))
    assert low <= 40 + ALLOWED_MB
    assert high <= 160 + ALLOWED_MB
    assert high >= low + 48


@pytest.mark.slow
def test_without_a_limit_all_row_groups_of_the_streams_are_open(path: str) -> None:
    """As many streams as there are row groups. So the other tests can fail."""
    found = read(path, 2048, streams=GROUPS)
    assert found["peak_mb"] > 256
    assert found["decoded_groups"] == GROUPS


@pytest.mark.slow
def test_the_datasets_of_a_mixture_share_one_limit(path: str) -> None:
    """The row groups of 32 streams of each of two datasets do not fit together."""
    found = read(path, 64, datasets=2, streams=GROUPS // 2)
    assert found["peak_mb"] <= 64 + ALLOWED_MB
    assert found["decoded_groups"] > GROUPS


@pytest.mark.parametrize("use_dictionary", [False, True])
def test_default_streams_fit_into_the_limit(tmp_path: Path, use_dictionary: bool) -> None:
    """40 row groups of 256 KiB, each with the same text in all its rows, as the windows of a long video have it.

    Tessera's writer encodes texts with a dictionary. A footer does not say how large they are then: a warning does.
    """
    rows = [{**written.row(i), "label": f"{i // 16:04}" * 4096} for i in range(640)]
    path = written.write(tmp_path, rows, shards=4, group_rows=16, use_dictionary=use_dictionary)
    reader: Any = dataset.open(path).to_torch(
        ["label"], batch_size=16, shuffle=True, collate=pa.RecordBatch.__len__, max_open_bytes=8 * 256 << 10
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert sum(reader) == 640
    assert (reader.counts.decoded_groups > 2 * 40) == use_dictionary
    assert [str(one.message).split(",")[0] for one in caught] == [
        "row groups are decoded more than once"
    ] * use_dictionary
