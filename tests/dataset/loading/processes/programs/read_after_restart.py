"""A rank that `torchrun` starts: reads 2 batches and dies; when it is started again, it reads the rest of the epoch.

Arguments: the dataset, a folder, and what decides the start (see `test_rank_comparison`).
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import torch.distributed as dist

from pipeline import dataset


def main(path: str, folder: str, case: str) -> None:
    start = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    if case == "counted in the store":
        del os.environ["TORCHELASTIC_RESTART_COUNT"]
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    reader = dataset.open(path).to_torch(["number"], batch_size=8, shuffle=True)
    state = Path(folder, "state.json")
    if start:
        reader.load_state_dict(json.loads(state.read_text()))
    batches = 0
    if start or rank == 0 or case != "rank 1 begins once only":
        for _ in reader:
            batches += 1
            if batches == 2 and not start:
                break
    if start:
        Path(folder, f"end-{rank}.json").write_text(json.dumps({"start": start, "batches": batches}))
        return
    if rank == 0:
        wait_for(Path(folder, "read-1"))
        state.with_suffix(".new").write_text(json.dumps(reader.state_dict()))
        state.with_suffix(".new").rename(state)
    else:
        Path(folder, "read-1").touch()
        wait_for(state)
    os._exit(1)


def wait_for(path: Path) -> None:
    """Waits until the other rank has written a file. A barrier would need connections between the ranks."""
    end_s = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end_s, path
        time.sleep(0.02)


if __name__ == "__main__":
    main(*sys.argv[1:])
