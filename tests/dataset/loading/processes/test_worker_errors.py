"""An error of a worker process of a ``Loader`` is the one that the trainer's process would raise: one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from torch.utils.data import DataLoader

from pipeline.core.errors import ConfigError
from pipeline.dataset.loading.processes.worker_errors import WithWorkerErrors
from tests.dataset.loading import written
from tests.dataset.loading.test_torch_reader import ROWS, reader


@pytest.fixture
def path(tmp_path: Path) -> str:
    return written.write(tmp_path, ROWS[:96], shards=2)


def corrupt(path: str) -> None:
    """Overwrites the pages of the second shard; its footer stays."""
    shard = sorted(Path(path, "v1", "data").iterdir())[1]
    content = shard.read_bytes()
    end = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    shard.write_bytes(content[:4] + bytes(end - 4) + content[end:])


def _raised(read: Any) -> str:
    with pytest.raises(ConfigError) as error:
        list(read)
    assert type(error.value) is ConfigError
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
@pytest.mark.parametrize("persistent", [False, True])
def test_a_corrupt_shard(path: str, method: str, persistent: bool) -> None:
    one = reader(path)
    loader = one.loader(2, multiprocessing_context=method, persistent_workers=persistent)
    corrupt(path)
    expected = _raised(reader(path))
    for _ in range(2):
        assert _raised(loader) == expected
        position = one.state_dict()["position"]
        assert position < len(one)
        one.set_epoch(0)


def test_a_lost_shard_and_the_limit_of_bytes(path: str) -> None:
    options: list[tuple[dict[str, Any], Callable[[str], None]]] = [
        ({"max_open_bytes": 64, "streams": 2}, lambda path: None),
        ({}, lambda path: sorted(Path(path, "v1", "data").iterdir())[0].unlink()),
    ]
    for of_reader, change in options:
        one, workers = reader(path, **of_reader), reader(path, **of_reader).loader(2)
        change(path)
        assert _raised(workers) == _raised(one)


def test_an_error_before_the_first_batch(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def begin_worker(*_: Any) -> None:
        raise ConfigError("the reader", "found", "allowed")

    monkeypatch.setattr("pipeline.dataset.loading.processes.worker_memory.WorkerMemory.begin_worker", begin_worker)
    assert _raised(reader(path).loader(1)) == "the reader: found; allowed"


def test_other_errors_and_loaders_are_those_of_torch(path: str) -> None:
    def fail(batch: pa.RecordBatch) -> None:
        raise ValueError("of the user")

    with pytest.raises(ValueError, match="Caught ValueError in DataLoader worker process 0"):
        list(reader(path, collate=fail).loader(1))
    corrupt(path)
    with pytest.raises(RuntimeError, match="Caught ConfigError in DataLoader worker process"):
        list(DataLoader(reader(path), batch_size=None, num_workers=1))
    with pytest.raises(ConfigError):
        list(WithWorkerErrors(reader(path)))
