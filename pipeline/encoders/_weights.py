"""What every member says of its checkpoint's weights: their dtype, their space, that none are missing."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pipeline.checkpoint import Checkpoint
from pipeline.errors import ConfigError


def native_dtype(checkpoint: Checkpoint) -> str:
    """dtype in which the checkpoint was saved; float32 where its config does not say."""
    config = checkpoint.json("config.json")
    return str(config.get("dtype") or config.get("torch_dtype") or "float32").removeprefix("torch.")


def space_id(checkpoint: Checkpoint, pool: str | None = None) -> str:
    """Identity of the pooled vectors' space. ``pool``: how they are pooled, where that is a choice."""
    name = f"{checkpoint.model_type}:{checkpoint.weights_sha256()[:12]}"
    return f"{name}:{pool}" if pool else name


def complete(loaded: tuple[Any, dict[str, Any]], where: str, unused: Collection[str] = ()) -> Any:
    """The model of ``from_pretrained(..., output_loading_info=True)``, if every weight was in the file.

    `transformers` only warns of missing weights and draws them at random, anew in each process.
    ``unused``: last parts of names of weights that the forward pass never reads.

    Raises:
        ConfigError: a weight is missing.
    """
    model, info = loaded
    missing = sorted(name for name in info["missing_keys"] if name.rsplit(".", 1)[-1] not in unused)
    if missing:
        raise ConfigError(
            where,
            f"{len(missing)} weights are missing from the checkpoint, {missing[0]!r} among them",
            "give a checkpoint of the whole encoder",
        )
    return model
