"""A model checkpoint: a folder, or a hub id with a pinned revision. Safetensors only, never remote code.

The driver reads what it needs before a run from JSON files, so that importing this module loads no heavy library.
Encoders and tokenizers load the `transformers` classes themselves, in ``setup``.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from pipeline.checkpoint import digests
from pipeline.checkpoint import files as checkpoint_files
from pipeline.checkpoint.files import bounded_memory
from pipeline.core.errors import ConfigError, describe

_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PREPROCESSING = (".json", ".txt", ".model")
_DOWNLOADED = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model"]


class CheckpointConfig(BaseModel):
    """Config section that names a checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint: str
    """A folder, or a hub id such as ``openai/clip-vit-base-patch32`` with ``revision``."""
    revision: str | None = None
    """The commit of a hub id, 40 hex digits. Not for folders."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on the disk of this machine.

    Args:
        path: absolute path of the folder.
        name: the folder or hub id, as in the config.
        revision: commit of the hub id; None for a folder.
        where: dotted path of the checkpoint in the config, for errors.
    """

    path: str
    name: str
    revision: str | None
    where: str

    def json(self, file: str) -> dict[str, Any]:
        """Returns the object in the JSON file of that name; {} if the checkpoint has no such file."""
        path = os.path.join(self.path, file)
        if not os.path.lexists(path):
            return {}
        values = checkpoint_files.read_json(path, self.where)
        if not isinstance(values, dict):
            raise ConfigError(self.where, f"{path} holds {type(values).__name__}", "it must hold a JSON object")
        return values

    def model_config(self) -> Any:
        """Returns the checkpoint's `transformers` config, with defaults. Imports transformers.

        Raises:
            ConfigError: `transformers` refuses the values.
        """
        from transformers import AutoConfig

        try:
            with bounded_memory():
                config = AutoConfig.from_pretrained(self.path, trust_remote_code=False, local_files_only=True)
        except Exception as error:  # each model's config class raises its own
            raise ConfigError(
                self.where,
                f"{self.name!r} has a config.json that transformers refuses ({describe(error)})",
                "give the model's own config.json",
            ) from error
        checkpoint_files.check_attention(config, self.name, self.where)
        return config

    @property
    def model_type(self) -> str:
        """The architecture, as in config.json; empty if it is missing."""
        return str(self.json("config.json").get("model_type", ""))

    def require(self, *model_types: str) -> None:
        """Raises ``ConfigError`` unless the checkpoint's architecture is one of ``model_types``."""
        if self.model_type not in model_types:
            raise ConfigError(
                self.where,
                f"{self.name!r} is of model_type {self.model_type!r}",
                f"this encoder takes {', '.join(model_types)}",
            )

    def weights_sha256(self) -> str:
        """Returns the SHA-256 (hex) over the names and contents of the weight files."""
        return _known_weights.get(self.path) or digests.of_folder(self.path, (".safetensors",))

    def preprocessing_sha256(self) -> str:
        """Returns the SHA-256 (hex) over the other files: config, tokenizer, processor."""
        return digests.of_folder(self.path, _PREPROCESSING)

    def sampled_sha256(self, with_weights: bool) -> str:
        """Returns a SHA-256 (hex) over names, sizes and contents of the files; of a large file over 64 samples of its
        content, so that it takes a moment for any size.

        Args:
            with_weights: False: of the files that tokenizers and processors read.
        """
        suffixes = (*_PREPROCESSING, ".safetensors") if with_weights else _PREPROCESSING
        return digests.of_folder(self.path, suffixes, digests.sampled_sha256)

    def weights_bytes(self) -> int:
        """Returns the total size of the weight files in bytes."""
        files = (os.path.join(self.path, file) for file in os.listdir(self.path) if file.endswith(".safetensors"))
        return sum(os.path.getsize(file) for file in files)


_known_weights: dict[str, str] = {}
"""Path -> `Checkpoint.weights_sha256`."""


def remember_weights(path: str, sha256: str) -> None:
    """Lets `Checkpoint.weights_sha256` of this process return ``sha256`` for the checkpoint at ``path``, unread.

    The caller has made sure that its files have not changed since they were read.
    """
    _known_weights[path] = sha256


def without_weights(path: str, where: str) -> Checkpoint:
    """Returns the checkpoint in the folder of a tokenizer, which has no weights. Raises ``ConfigError``."""
    checkpoint_files.check(path, where)
    checkpoint = Checkpoint(os.path.abspath(path), path, None, where)
    checkpoint_files.check_numbers(checkpoint.json("config.json"), 0, f"{path}/config.json", where)
    return checkpoint


def resolve(name: str, revision: str | None, where: str) -> Checkpoint:
    """Finds and checks a checkpoint. A hub id is downloaded to the hub's cache if it is not there.

    Args:
        name: a folder, or a hub id.
        revision: commit of the hub id; None for a folder.
        where: dotted path of the checkpoint in the config, for errors.

    Raises:
        ConfigError: no such folder, no pinned revision, hub out of reach, no safetensors, special files, a config that
            names code or files elsewhere (`checkpoint.files.check`).
    """
    if os.path.isdir(name):
        if revision is not None:
            raise ConfigError(where, f"revision {revision!r} for the folder {name!r}", "revisions are for hub ids")
        path = os.path.abspath(name)
    elif not _HUB_ID.fullmatch(name):
        raise ConfigError(where, f"no folder {name!r}", "give a folder, or a hub id owner/name with its revision")
    elif revision is None or not _COMMIT.fullmatch(revision):
        raise ConfigError(
            where,
            f"no folder {name!r}, and as a hub id its revision is {revision!r}",
            "pin the commit: revision: <40 hex digits>",
        )
    else:
        path = _download(name, revision, where)
    _check_files(path, name, where)
    return Checkpoint(path, name, revision, where)


def _download(name: str, revision: str, where: str) -> str:
    """Downloads a hub id, and returns its folder in the hub's cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    try:
        return str(snapshot_download(name, revision=revision, allow_patterns=_DOWNLOADED))
    except Exception as error:  # the hub client raises from several libraries
        raise ConfigError(
            where, f"cannot fetch {name!r} at {revision[:12]} ({describe(error)})", "check the id, or give a folder"
        ) from error


def _check_files(path: str, name: str, where: str) -> None:
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
    parts = Checkpoint(path, path, None, where).json(_INDEX).get("weight_map")
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
