"""Checks the files of a checkpoint's folder before any library opens them.

`transformers` loads what a config names: kernels and models of a hub, other weight files, quantisers. A checkpoint is
untrusted data: its configs may describe its own model, and nothing else.
"""

from __future__ import annotations

import os
import re

from pipeline.checkpoint._audio_filters import check_audio_filters
from pipeline.checkpoint._json import MAX_JSON_BYTES, read_json
from pipeline.checkpoint._keys import ATTENTION, check_attention, check_keys, check_special_tokens
from pipeline.checkpoint._memory import bounded_memory
from pipeline.checkpoint._numbers import check_numbers
from pipeline.checkpoint._regular_file import check_file
from pipeline.core.errors import ConfigError

__all__ = ["ATTENTION", "bounded_memory", "check", "check_attention", "check_file", "check_numbers", "read_json"]

_SUFFIXES = (".json", ".txt", ".model", ".jinja", ".safetensors")
"""Files that a library may open."""
_VOCABULARIES = ("tokenizer.json", "vocab.json", "tekken.json")
_MAX_VOCABULARY_BYTES = 128 << 20
_CONFIG = re.compile(r"config.*\.json$|_config\.json$")
_DISTRIBUTED = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")


def check(folder: str, where: str) -> None:
    """Checks every file of a checkpoint that a library may open. Follows links, since a hub's cache consists of them.

    Args:
        folder: path of the checkpoint.
        where: dotted path of the checkpoint in the config, for errors.

    Raises:
        ConfigError: a pipe, a device or a folder in place of a file; a file of another process; JSON that is invalid,
            too large or too deep; a config that names code, files or models elsewhere.
    """
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if name in ("adapter_config.json", "audio_tokenizer_config.json"):
            raise ConfigError(where, f"{path} names another model", "merge it into the weights, or leave it out")
        if _DISTRIBUTED.fullmatch(name):
            raise ConfigError(where, f"{path} is a part of a distributed checkpoint", "save the whole as one")
        if not name.endswith(_SUFFIXES) and not name.startswith("tokenizer.model"):
            continue
        size = check_file(path, where)
        if name.endswith((".safetensors", ".safetensors.index.json")):
            continue
        is_vocabulary = name in _VOCABULARIES or not name.endswith(".json")
        most = _MAX_VOCABULARY_BYTES if is_vocabulary else MAX_JSON_BYTES
        if size > most:
            raise ConfigError(where, f"{path} has {size} bytes", f"at most {most}")
        if not is_vocabulary:
            values = read_json(path, where)
            if _CONFIG.search(name):
                check_keys(values, path, where)
                check_audio_filters(values, path, where)
            elif name == "special_tokens_map.json":
                check_special_tokens(values, path, where)
