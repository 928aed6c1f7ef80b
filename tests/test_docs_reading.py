"""Each snippet of docs/reading.md runs, on a dataset with failures; and at the paths that the page names there are the
rows and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import polars
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from pipeline import config as configs
from pipeline import dataset, run
from tests.end_to_end.test_nights import draw
from tests.support import ROOT, duck, local_runs

PAGE = (ROOT / "docs" / "reading.md").read_text()
SNIPPETS = dict(re.findall(r"^## (.+?)\n.*?```python\n(.*?)```", PAGE, flags=re.M | re.S))


@pytest.fixture(scope="module")
def made(ray_session: Any, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``.demo/first``: nine rows and two failures."""
    folder = tmp_path_factory.mktemp("docs")
    for i in range(9):
        draw(folder, f"s{i}", 20 * i)
    for name in ("bad.png", "worse.png"):
        (folder / "in" / name).write_bytes(b"no picture")
    picture = {
        "modality": "image",
        "tokenizer": {"kind": "patch"},
        "encoder": {"kind": "clip", "checkpoint": str(models / "clip")},
    }
    raw = {
        "source": {"kind": "files", "path": str(folder / "in")},
        "output": {"path": str(folder / ".demo" / "first")},
        "features": {"picture": picture},
        "failures": {"max_fraction": 1.0},
    }
    run.extract(local_runs.prepare(configs.parse(raw)), show_progress=False)
    return folder


def test_the_page_has_a_snippet_for_each_reader() -> None:
    assert [*SNIPPETS] == [
        *("Tessera's reader", "PyTorch", "pyarrow", "pandas", "Polars", "DuckDB", "datasets", "Ray Data"),
    ]


def test_the_snippet_of_ray_runs(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process, which has a Ray; whose workers have another working directory."""
    monkeypatch.chdir(made)
    exec(SNIPPETS["Ray Data"].replace(".demo/first", str(made / ".demo" / "first")), {})
    assert capsys.readouterr().out.strip().endswith("9")


@pytest.mark.parametrize("name", [name for name in SNIPPETS if name != "Ray Data"])
def test_a_snippet_runs(made: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HF_HOME", str(made / "hf"))
    done = subprocess.run(
        [sys.executable, "-c", SNIPPETS[name]], cwd=made, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = {"Polars": "s0.png", "DuckDB": "s0.png", "PyTorch": "torch.Size([8, "}.get(name, "9")
    assert rows in done.stdout, done.stdout


def test_the_paths_hold_the_rows_and_nothing_else(made: Path) -> None:
    found = dataset.open(str(made / ".demo" / "first"))
    assert (found.num_rows, found.num_failures) == (9, 2)
    expected = sorted(found.to_arrow(["sample_id"])["sample_id"].to_pylist())
    version = made / ".demo" / "first" / "v1"
    pattern = f"{version}/data/*.parquet"
    import ray.data

    readers = {
        "pyarrow": pq.read_table(version)["sample_id"].to_pylist(),
        "pyarrow.dataset": ds.dataset(version).to_table()["sample_id"].to_pylist(),
        "pandas": pd.read_parquet(version)["sample_id"].tolist(),
        "ray": [row["sample_id"] for row in ray.data.read_parquet(str(version)).take_all()],
        "polars": polars.read_parquet(pattern)["sample_id"].to_list(),
        "duckdb": [row[0] for row in duck.query(f"select sample_id from '{pattern}'")[1]],
    }
    for name, ids in readers.items():
        assert sorted(ids) == expected, name
