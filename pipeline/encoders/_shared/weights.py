"""What every member says of its checkpoint's weights: their dtype and their space; loading without noise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.checkpoint.checkpoint import Checkpoint


def native_dtype(checkpoint: Checkpoint) -> str:
    """dtype in which the checkpoint was saved; float32 where its config does not say."""
    config = checkpoint.json("config.json")
    return str(config.get("dtype") or config.get("torch_dtype") or "float32").removeprefix("torch.")


def space_id(checkpoint: Checkpoint, pool: str | None = None) -> str:
    """Identity of the pooled vectors' space. ``pool``: how they are pooled, where that is a choice."""
    name = f"{checkpoint.model_type}:{checkpoint.weights_sha256()[:12]}"
    return f"{name}:{pool}" if pool else name


@contextmanager
def quiet() -> Iterator[None]:
    """transformers reports weights that a tower does not need, and draws a progress bar, on every load."""
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
