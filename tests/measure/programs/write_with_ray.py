"""Writes 64 rows to FOLDER with plain Ray Data, through two actors that import torch and ``transformers``."""

import logging
import sys

import ray

ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
logging.getLogger("ray.data").setLevel(logging.ERROR)
context = ray.data.DataContext.get_current()
context.enable_progress_bars = False
context.print_on_execution_start = False


class Encoder:
    def __init__(self):
        import torch
        from transformers import AutoImageProcessor, CLIPModel

        self.imported = (torch, AutoImageProcessor, CLIPModel)

    def __call__(self, batch):
        return batch


rows = ray.data.range(64, override_num_blocks=4)
pool = ray.data.ActorPoolStrategy(size=2)
rows.map_batches(Encoder, compute=pool, num_cpus=0.4, batch_size=None).write_parquet(sys.argv[1])
