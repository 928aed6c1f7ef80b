"""Dtype and embedding space of a checkpoint's weights; loading without log output."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.checkpoint.checkpoint import Checkpoint


def native_dtype(checkpoint: Checkpoint) -> str:
    """The dtype in which the checkpoint was saved; float32 if its config does not say."""
    config = checkpoint.json("config.json")
    return str(config.get("dtype") or config.get("torch_dtype") or "float32").removeprefix("torch.")


def space_id(checkpoint: Checkpoint, pool: str | None = None) -> str:
    """Identity of the space of the pooled vectors. ``pool``: the pooling method, if the config chooses one."""
    name = f"{checkpoint.model_type}:{checkpoint.weights_sha256()[:12]}"
    return f"{name}:{pool}" if pool else name


@contextmanager
def quiet() -> Iterator[None]:
    """Turns off the log and the progress bar of `transformers`, which reports unused weights on every load."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
