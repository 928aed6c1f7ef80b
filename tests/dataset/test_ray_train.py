"""`Dataset.to_ray` feeds two workers of Ray Train."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import dataset
from tests.dataset.loading import written

COLUMNS = ["sample_id", "number", "photo_embedding", "photo_tokens"]


def _train(config: dict[str, Any]) -> None:
    """What each worker runs: one epoch, of which it writes down the rows."""
    import ray.train

    shard = ray.train.get_dataset_shard("train")
    rows = []
    for batch in shard.iter_torch_batches(batch_size=8, collate_fn=config["collate"]):
        tokens = batch["photo_tokens_mask"].sum(dim=1)
        for i, sample_id in enumerate(batch["sample_id"]):
            vector = batch["photo_embedding"][i].tolist() if batch["photo_embedding_valid"][i] else None
            rows.append([sample_id, int(batch["number"][i]), vector, int(tokens[i])])
    rank = ray.train.get_context().get_world_rank()
    (Path(config["out"]) / f"{rank}.json").write_text(json.dumps(rows))


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_every_row_exactly_once_over_both_workers(
    tmp_path: Path, ray_session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TRAIN_V2_ENABLED", "1")
    from ray.train import DataConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    expected = [written.row(number) for number in range(90) if number not in (4, 40)]
    path = written.write(tmp_path / "out", [written.row(number) for number in range(90)], 6, deleted=(4, 40))
    data = dataset.open(path)
    TorchTrainer(
        _train,
        train_loop_config={"collate": data.ray_collate(), "out": str(tmp_path)},
        torch_config=TorchConfig(backend="gloo"),
        # half a CPU each: the tasks that read the shards need the other one of the session's two
        scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 0.5}),
        datasets={"train": data.to_ray(COLUMNS)},
        dataset_config=DataConfig(datasets_to_split=["train"]),
        run_config=RunConfig(storage_path=str(tmp_path / "runs")),
    ).fit()
    parts = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert all(parts), "a worker had no rows"
    found = sorted([*parts[0], *parts[1]])
    assert [row[:2] for row in found] == [[row["sample_id"], row["number"]] for row in expected]
    for (_, number, vector, tokens), row in zip(found, expected, strict=True):
        assert (vector is None) == (row["photo_embedding"] is None), number
        if vector is not None:
            np.testing.assert_array_equal(np.float32(vector), np.float32(row["photo_embedding"]))
        assert tokens == len(row["photo_tokens"] or ())
