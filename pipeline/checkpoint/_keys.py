"""Checks the keys of a checkpoint's configs: a config must not name code, files or models elsewhere."""

from __future__ import annotations

from typing import Any

from pipeline.checkpoint._json import leaves, walk
from pipeline.core.errors import ConfigError

ATTENTION = ("eager", "sdpa")
"""Attention implementations of PyTorch and `transformers`. If ``flash_attention_2`` is not installed, `transformers`
downloads it from a hub."""
_EXPERTS = ("eager", "grouped_mm", "batched_mm")
"""Implementations of mixtures of experts in `transformers`."""
_LABELS = ("id2label", "label2id")
"""Objects whose keys are names of labels."""
_REFUSED = {
    "quantization_config": "give the plain weights; `dtype` says how they are loaded",
    "transformers_weights": "name the weights model.safetensors",
    "configuration_files": "give one config.json",
    "fast_tokenizer_files": "give one tokenizer.json",
    "audio_tokenizer": "this names a model elsewhere; leave it out",
    "attribute_map": "leave it out: a config's names are its class's",
    "fusion_config": "leave it out",
    "kernel_config": "leave it out",
    "use_kernels": "leave it out",
    "distributed_config": "leave it out",
    "init_inputs": "leave it out",
    "gguf_file": "leave it out",
}
"""Key that names code, files or models elsewhere, or that changes the arithmetic -> what to do about it."""


def check_keys(values: Any, path: str, where: str) -> None:
    """Raises ``ConfigError`` for a config that names code, files or models elsewhere."""
    for names, value in walk(values):
        key = names[-1] if names else ""
        if not isinstance(key, str) or value in (None, False, "", [], {}) or (names[:-1] and names[-2] in _LABELS):
            continue
        place = ".".join(map(str, names))
        if key in _REFUSED:
            raise ConfigError(where, f"{path} has {place}", _REFUSED[key])
        if "attn_implementation" in key and not key.endswith("autoset"):
            for asked in leaves(value):
                if asked not in ATTENTION:
                    raise _attention_error(where, path, place, asked)
        if "experts_implementation" in key:
            for asked in leaves(value):
                if asked not in _EXPERTS:
                    raise ConfigError(where, f"{path}: {place} is {asked!r}", f"built in are {', '.join(_EXPERTS)}")


def check_attention(config: Any, name: str, where: str) -> None:
    """Raises ``ConfigError`` if a loaded `transformers` config, or a config in it, has another attention
    implementation.

    Complements `check_keys`: the name of the key in the JSON file does not matter here.
    """
    todo, seen = [config], set[int]()
    while todo:
        one = todo.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        asked = vars(one).get("_attn_implementation_internal")
        if asked is not None and asked not in ATTENTION:
            raise _attention_error(where, name, "_attn_implementation", asked)
        todo += [value for value in vars(one).values() if hasattr(value, "_attn_implementation_internal")]


def check_special_tokens(values: Any, path: str, where: str) -> None:
    """Raises ``ConfigError`` if ``special_tokens_map.json`` names files: `transformers` passes all of its keys to the
    tokenizer as arguments."""
    named = [key for key in values if key.endswith(("_file", "_files", "_path"))] if isinstance(values, dict) else []
    if named or not isinstance(values, dict):
        found = f"{path} has {named[0]}" if named else f"{path} holds {type(values).__name__}"
        raise ConfigError(where, found, "only special tokens belong there")


def _attention_error(where: str, path: str, place: str, asked: Any) -> ConfigError:
    built_in = " and ".join(ATTENTION)
    return ConfigError(where, f"{path}: {place} is {asked!r}", f"built in are {built_in}: take one, or leave it out")
