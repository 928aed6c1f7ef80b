"""What the files of a checkpoint's folder may be and may ask for: checked before any library opens them.

`transformers` follows what a config names: kernels and models of a hub, other weight files, quantisers. A checkpoint is
data from outside: it may say what its own model is like, nothing more.
"""

from __future__ import annotations

import json
import math
import os
import re
import resource
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.core.errors import ConfigError, describe, one_line
from pipeline.storage.local_files import is_hole

ATTENTION = ("eager", "sdpa")
"""Implementations that PyTorch and `transformers` hold. ``flash_attention_2`` is fetched from a hub where it is not
installed."""
_EXPERTS = ("eager", "grouped_mm", "batched_mm")
_SUFFIXES = (".json", ".txt", ".model", ".jinja", ".safetensors")
_SPECIAL = ("/proc", "/sys", "/dev")
_SHARED_MEMORY = "/dev/shm/"
"""An ordinary folder, where the checkpoint itself lies in it."""
_LABELS = ("id2label", "label2id")
_MAX_JSON_BYTES = 32 << 20
_MAX_VOCABULARY_BYTES = 128 << 20
_VOCABULARIES = ("tokenizer.json", "vocab.json", "tekken.json")
_MAX_DEPTH = 64
_MAX_NUMBER = 1 << 31
_MAX_LABELS = 1_000_000
_MAX_VALUES = 2_500_000
"""Of a JSON file, commas and brackets counted."""
_MAX_SPECTRUM = 1 << 16
_MAX_FILTERS = 1 << 23
"""Weights of a feature extractor's filters: frequencies times bands."""
_ALWAYS_LAYERS = 1000
_MAX_BUILD_BYTES = 8 << 30
_MAX_COPIES = 8
_CONFIG = re.compile(r"config.*\.json$|_config\.json$")
_ARE_LAYERS = re.compile(r"(?:^|_)(?:layers?|blocks|depths?|stages|levels)$")
_SPECTRUM = re.compile(
    r"(?:^|_)(?:n_fft|fft_(?:length|size|window_size)|hop_length|feature_size|num_mel_bins|n_mels|chunk_length(?:_s)?|max_length_s|sampling_rate)$"
)
_RATE = re.compile(r"_rate$")
_BANDS = re.compile(r"(?:^|_)(?:feature_size|num_mel_bins|n_mels)$")
_FREQUENCIES = re.compile(r"(?:^|_)(?:n_fft|fft_(?:length|size|window_size))$")
_USUAL = {_BANDS: 128, _FREQUENCIES: 1024}
"""Of an extractor that does not say."""
_MAY_BE_LARGE = re.compile(r"theta|base|seed|_ids?$|parameters")
_DISTRIBUTED = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")
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
"""Keys that name code, files or models elsewhere, or other arithmetic, and what to do."""


def check(folder: str, where: str) -> None:
    """Looks at every file of a checkpoint that a library may open. Follows links, which a hub's cache is made of.

    Raises:
        ConfigError: a pipe, a device or a folder in a file's place; a file of another process; JSON that is none, too
            large or too deep; a config that asks for code, files or models elsewhere.
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
        vocabulary = name in _VOCABULARIES or not name.endswith(".json")
        most = _MAX_VOCABULARY_BYTES if vocabulary else _MAX_JSON_BYTES
        if size > most:
            raise ConfigError(where, f"{path} has {size} bytes", f"at most {most}")
        if not vocabulary:
            values = read_json(path, where)
            if _CONFIG.search(name):
                _check_keys(values, path, where)
                _check_spectra(values, path, where)
            elif name == "special_tokens_map.json":
                _check_tokens(values, path, where)


def check_file(path: str, where: str) -> int:
    """Bytes of a regular file. Never waits for one that is none.

    Raises:
        ConfigError: it is no file, cannot be reached, or shows another process or a device.
    """
    try:
        found = os.stat(path)
        real = os.path.realpath(path)
    except OSError as error:
        raise ConfigError(where, f"{path} cannot be read ({describe(error)})", "copy the checkpoint again") from error
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(where, f"{path} is {_kind(found.st_mode)}", "a file must be there")
    if is_hole(found):
        raise ConfigError(
            where, f"{path} has {found.st_size} bytes, and is nearly all hole", "copy the checkpoint again"
        )
    in_memory = all(one.startswith(_SHARED_MEMORY) for one in (real, os.path.abspath(path)))
    if not in_memory and any(real.startswith(f"{place}/") for place in _SPECIAL):
        raise ConfigError(where, f"{path} leads to {real}", "a file of the checkpoint must be there")
    return found.st_size


def read_json(path: str, where: str) -> Any:
    """The values of a JSON file of a checkpoint, with at most 64 levels.

    Raises:
        ConfigError: it is no file, too large, too deep, or no JSON.
    """
    size = check_file(path, where)
    if size > _MAX_JSON_BYTES:
        raise ConfigError(where, f"{path} has {size} bytes", f"at most {_MAX_JSON_BYTES}")
    deep = ConfigError(where, f"{path} is nested too deep", f"at most {_MAX_DEPTH} levels")
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), encoding="utf-8") as file:
            text = file.read()
        if (count := sum(map(text.count, ",[{"))) > _MAX_VALUES:
            raise ConfigError(where, f"{path} has {count} values", f"at most {_MAX_VALUES}")
        values = json.loads(text)
    except (ValueError, OSError) as error:
        raise ConfigError(where, f"{path} cannot be read ({describe(error)})", "give valid JSON") from error
    except RecursionError as error:
        raise deep from error
    if _deeper_than(values, _MAX_DEPTH):
        raise deep
    return values


def check_numbers(config: Any, tensors: int, path: str, where: str) -> None:
    """Raises ``ConfigError`` for a config that would build far more than the weights hold.

    Args:
        tensors: in the weight files; each layer has one at least. 0: there are no weights.
        path: of the config, for the error.
    """
    layers = max(tensors, _ALWAYS_LAYERS)
    for names, value in _walk(config):
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue  # NaN is over no bound: torch refuses it
        key = next((name for name in reversed(names) if isinstance(name, str)), "")
        allowed = ""
        if abs(value) > _MAX_NUMBER and not _MAY_BE_LARGE.search(key) and isinstance(value, int):
            allowed = f"at most {_MAX_NUMBER}"
        elif _ARE_LAYERS.search(key) and value > layers:
            allowed = f"the weights hold {tensors} tensors"
        elif key == "num_labels" and value > _MAX_LABELS:
            allowed = f"at most {_MAX_LABELS}"
        if allowed:
            raise ConfigError(where, f"{path}: {'.'.join(map(str, names))} is {_short(value)}", allowed)


def check_attention(config: Any, name: str, where: str) -> None:
    """Raises ``ConfigError`` for a `transformers` config, or one in it, that has taken an attention from elsewhere,
    whatever its JSON called it."""
    todo, seen = [config], set[int]()
    while todo:
        one = todo.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        asked = vars(one).get("_attn_implementation_internal")
        if asked is not None and asked not in ATTENTION:
            raise _attention(where, name, "_attn_implementation", asked)
        todo += [value for value in vars(one).values() if hasattr(value, "_attn_implementation_internal")]


_lock = threading.RLock()
_bounded = 0


@contextmanager
def bounded_memory(weights_bytes: int = 0) -> Iterator[None]:
    """An allocation fails that would take this process far beyond what a model of such weights needs: a checkpoint's
    numbers must not take all of a machine's memory. Does nothing inside another one, or where a limit is set already.
    """
    global _bounded
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    with _lock:
        _bounded += 1
        first = _bounded == 1 and soft == hard
        if first:
            with open("/proc/self/statm", encoding="ascii") as file:
                data = int(file.read().split()[5]) * resource.getpagesize()
            most = data + _MAX_BUILD_BYTES + _MAX_COPIES * weights_bytes
            resource.setrlimit(resource.RLIMIT_DATA, (most if hard < 0 else min(most, hard), hard))
    try:
        yield
    finally:
        with _lock:
            _bounded -= 1
            if first:
                resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _check_keys(values: Any, path: str, where: str) -> None:
    for names, value in _walk(values):
        key = names[-1] if names else ""
        if not isinstance(key, str) or value in (None, False, "", [], {}) or (names[:-1] and names[-2] in _LABELS):
            continue
        place = ".".join(map(str, names))
        if key in _REFUSED:
            raise ConfigError(where, f"{path} has {place}", _REFUSED[key])
        if "attn_implementation" in key and not key.endswith("autoset"):
            for asked in _leaves(value):
                if asked not in ATTENTION:
                    raise _attention(where, path, place, asked)
        if "experts_implementation" in key:
            for asked in _leaves(value):
                if asked not in _EXPERTS:
                    raise ConfigError(where, f"{path}: {place} is {asked!r}", f"built in are {', '.join(_EXPERTS)}")


def _check_spectra(values: Any, path: str, where: str) -> None:
    """A feature extractor makes its filters, [frequencies, bands], when it is loaded."""
    largest = dict(_USUAL)
    for names, value in _walk(values):
        key = names[-1] if names else ""
        if not (isinstance(key, str) and _SPECTRUM.search(key)) or value is None or isinstance(value, bool):
            continue
        place = ".".join(map(str, names))
        if not isinstance(value, int | float) or (isinstance(value, float) and not math.isfinite(value)):
            raise ConfigError(where, f"{path}: {place} is {one_line(repr(value), 60)}", "a number")
        if value > _MAX_SPECTRUM and not _RATE.search(key):
            raise ConfigError(where, f"{path}: {place} is {_short(value)}", f"at most {_MAX_SPECTRUM}")
        for kind in largest:
            largest[kind] = max(largest[kind], int(value)) if kind.search(key) else largest[kind]
    frequencies, bands = largest[_FREQUENCIES] // 2 + 1, largest[_BANDS]
    if frequencies * bands > _MAX_FILTERS:
        found = f"{path} has filters of {frequencies} frequencies in {bands} bands"
        raise ConfigError(where, found, f"at most {_MAX_FILTERS} of both, multiplied")


def _check_tokens(values: Any, path: str, where: str) -> None:
    """`transformers` takes all keys of this file for a tokenizer's arguments, names of files among them."""
    named = [key for key in values if key.endswith(("_file", "_files", "_path"))] if isinstance(values, dict) else []
    if named or not isinstance(values, dict):
        found = f"{path} has {named[0]}" if named else f"{path} holds {type(values).__name__}"
        raise ConfigError(where, found, "only special tokens belong there")


def _attention(where: str, path: str, place: str, asked: Any) -> ConfigError:
    built_in = " and ".join(ATTENTION)
    return ConfigError(where, f"{path}: {place} is {asked!r}", f"built in are {built_in}: take one, or leave it out")


def _leaves(value: Any) -> list[Any]:
    return [one for _, one in _walk(value) if not isinstance(one, dict | list) and one is not None]


def _walk(values: Any) -> Iterator[tuple[list[str | int], Any]]:
    """Yields each value with its path, mappings and lists among them. The path is one list, which changes: copy what is
    kept."""
    names: list[str | int] = []
    yield names, values
    todo = [_items(values)]
    while todo:
        for name, value in todo[-1]:
            names.append(name)
            yield names, value
            if isinstance(value, dict | list):
                todo.append(_items(value))
                break
            names.pop()
        else:
            todo.pop()
            if names:
                names.pop()


def _items(value: Any) -> Iterator[tuple[Any, Any]]:
    return iter(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())


def _deeper_than(values: Any, depth: int) -> bool:
    level = [values]
    for _ in range(depth):
        level = [
            one
            for value in level
            for one in (value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
            if isinstance(one, dict | list)
        ]
        if not level:
            return False
    return True


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a pipe"
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a device"


def _short(value: float) -> str:
    return str(value) if isinstance(value, float) or abs(value) < 10**30 else f"a number of {value.bit_length()} bits"
