"""Checks that a folder holds a complete checkpoint: a config, and all weights as safetensors."""

from __future__ import annotations

import os

from pipeline.checkpoint import files as checkpoint_files
from pipeline.core.errors import ConfigError, describe

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"


def check_folder(path: str, name: str, where: str) -> None:
    """Raises ``ConfigError`` unless a folder holds a complete checkpoint that is safe to load."""
    files = os.listdir(path)
    if "config.json" not in files:
        raise ConfigError(where, f"{name!r} has no config.json", "give a folder written by save_pretrained")
    checkpoint_files.check(path, where)
    weights = [file for file in files if file.endswith(".safetensors")]
    tensors = sum(_count_tensors(os.path.join(path, file), where) for file in weights)
    if weights:
        config = os.path.join(path, "config.json")
        checkpoint_files.check_numbers(checkpoint_files.read_json(config, where), tensors, config, where)
    if _INDEX in files:
        _check_index(path, set(files), where)
    elif weights and _WEIGHTS not in files:
        raise ConfigError(where, f"{name!r} holds {weights[0]!r} but no index", f"name it {_WEIGHTS}, or add {_INDEX}")
    elif not weights:
        pickled = [file for file in files if file.endswith((".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack"))]
        found = f"{name!r} holds only {pickled[0]}" if pickled else f"{name!r} holds no weights"
        raise ConfigError(where, found, "only safetensors are loaded: save_pretrained(..., safe_serialization=True)")


def _check_index(path: str, files: set[str], where: str) -> None:
    """Raises ``ConfigError`` if a file that the index of the weights names is missing."""
    values = checkpoint_files.read_json(os.path.join(path, _INDEX), where)
    parts = values.get("weight_map") if isinstance(values, dict) else None
    if not isinstance(parts, dict):
        raise ConfigError(where, f"{path}/{_INDEX} has no weight_map", "give the checkpoint's own")
    missing = sorted({str(part) for part in parts.values()} - files)
    if missing:
        raise ConfigError(where, f"{path} lacks {missing[0]}, which {_INDEX} names", "copy the whole checkpoint")


def _count_tensors(path: str, where: str) -> int:
    """Returns the number of tensors in a safetensors file.

    Raises:
        ConfigError: the file is not as long as its header says, for example after an incomplete download.
    """
    from safetensors import safe_open

    try:
        with safe_open(path, framework="np") as file:
            return len(list(file.keys()))
    except Exception as error:  # the library raises its own kinds
        raise ConfigError(
            where, f"{path} is no whole safetensors file ({describe(error)})", "copy or download it again"
        ) from error
