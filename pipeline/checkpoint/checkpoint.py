"""A model checkpoint: a folder, a URL, or a hub id with a pinned revision. Safetensors only, never remote code.

The driver reads what it needs before a run from JSON files, so that importing this module loads no heavy library.
Encoders and tokenizers load the `transformers` classes themselves, in ``setup``.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ConfigDict

from pipeline.checkpoint import digests, fetched
from pipeline.checkpoint import files as checkpoint_files
from pipeline.checkpoint._whole_folder import check_folder
from pipeline.checkpoint.files import bounded_memory
from pipeline.core.errors import ConfigError, describe

_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_PREPROCESSING = (".json", ".txt", ".model")


class CheckpointConfig(BaseModel):
    """Config section that names a checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint: str
    """A folder, the URL of one on an object store, or a hub id such as ``openai/clip-vit-base-patch32`` with
    ``revision``."""
    revision: str | None = None
    """The commit of a hub id, 40 hex digits. Not for folders and URLs."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on the disk of this machine.

    Args:
        path: absolute path of the folder.
        name: the folder, URL or hub id, as in the config.
        revision: commit of the hub id; None for others.
        where: dotted path of the checkpoint in the config, for errors.
        needs_weights: False: it is that of a tokenizer.
    """

    path: str
    name: str
    revision: str | None
    where: str
    needs_weights: bool = True

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


def of_tokenizer(name: str, revision: str | None, where: str) -> Checkpoint:
    """Returns the checkpoint of a tokenizer. A folder, or what a URL names, needs no weights. See `resolve`."""
    if revision is not None or not (os.path.isdir(name) or fetched.is_remote(name)):
        return resolve(name, revision, where)
    path = fetched.local_folder(name, where, with_weights=False) if fetched.is_remote(name) else name
    checkpoint_files.check(path, where)
    checkpoint = Checkpoint(os.path.abspath(path), name, None, where, needs_weights=False)
    checkpoint_files.check_numbers(checkpoint.json("config.json"), 0, f"{path}/config.json", where)
    return checkpoint


def resolve(name: str, revision: str | None, where: str) -> Checkpoint:
    """Finds and checks a checkpoint. What a URL or a hub id names is fetched into a cache if it is not there.

    Args:
        name: a folder, a URL, or a hub id.
        revision: commit of the hub id; None for others.
        where: dotted path of the checkpoint in the config, for errors.

    Raises:
        ConfigError: no such folder, no pinned revision, storage or hub out of reach, no safetensors, special files, a
            config that names code or files elsewhere (`checkpoint.files.check`).
    """
    if fetched.is_remote(name):
        if revision is not None:
            raise ConfigError(where, f"revision {revision!r} for the URL {name!r}", "revisions are for hub ids")
        path = fetched.local_folder(name, where)
    elif os.path.isdir(name):
        if revision is not None:
            raise ConfigError(where, f"revision {revision!r} for the folder {name!r}", "revisions are for hub ids")
        path = os.path.abspath(name)
    elif not _HUB_ID.fullmatch(name):
        raise ConfigError(where, f"no folder {name!r}", "give a folder, a URL, or a hub id with its revision")
    elif revision is None or not _COMMIT.fullmatch(revision):
        raise ConfigError(
            where,
            f"no folder {name!r}, and as a hub id its revision is {revision!r}",
            "pin the commit: revision: <40 hex digits>",
        )
    else:
        path = _download(name, revision, where)
    check_folder(path, name, where)
    return Checkpoint(path, name, revision, where)


def on_this_machine(checkpoint: Checkpoint, with_weights: bool = True) -> Checkpoint:
    """Returns a checkpoint that the driver has found, on this machine. What a URL or a hub id names is fetched if it is
    not there.

    Args:
        with_weights: False: only the files of tokenizers and processors are needed.

    Raises:
        ConfigError: there is no such folder; or what the URL names has changed since.
    """
    if os.path.isdir(checkpoint.path):
        return checkpoint
    where, name = checkpoint.where, checkpoint.name
    if checkpoint.revision is not None:
        return replace(checkpoint, path=resolve(name, checkpoint.revision, where).path)
    if not fetched.is_remote(name):
        raise ConfigError(where, f"no folder {checkpoint.path!r}", "put it at that path on all nodes, or give a URL")
    if (copy := fetched.copy_here(os.path.basename(checkpoint.path))) is not None:
        return replace(checkpoint, path=copy)
    files = [one for one in fetched.files_of(name, where) if checkpoint.needs_weights or not one.has_weights]
    if fetched.name_of_copy(files) != os.path.basename(checkpoint.path):
        raise ConfigError(where, f"{name!r} has changed since the driver read it", "run again with one that stays")
    if with_weights and checkpoint.needs_weights:
        return replace(checkpoint, path=resolve(name, None, where).path)
    return replace(checkpoint, path=of_tokenizer(name, None, where).path)


def _download(name: str, revision: str, where: str) -> str:
    """Downloads a hub id, and returns its folder in the hub's cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    try:
        return str(snapshot_download(name, revision=revision, allow_patterns=list(fetched.PATTERNS)))
    except Exception as error:  # the hub client raises from several libraries
        raise ConfigError(
            where, f"cannot fetch {name!r} at {revision[:12]} ({describe(error)})", "check the id, or give a folder"
        ) from error
