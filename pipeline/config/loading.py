"""Loads a config from a YAML file and overrides."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

from pydantic import ValidationError

from pipeline import storage
from pipeline.config import yaml
from pipeline.config._explain import config_error
from pipeline.config.models import PipelineConfig
from pipeline.core.errors import ConfigError
from pipeline.core.redaction import has_secret

_MAX_BYTES = 1 << 20
"""Largest config file."""
_SECRET = ("a URL with a password or a signature", "leave it out: secrets come from the environment")
_MAX_PARENTS = 50
"""Most parents of an override's key. YAML may be as deep."""


def load(path: str, overrides: list[str] | None = None) -> PipelineConfig:
    """Loads a config from a YAML file.

    Paths in the file that begin with ``./`` or ``../`` are relative to the file. Other relative paths, and all paths in
    overrides, are relative to the working directory.

    Args:
        overrides: ``dotted.key=value`` each, with the value in YAML.

    Raises:
        ConfigError: a mistake. The message has the path in the YAML, what was found and what is allowed.
    """
    try:
        with open(path, "rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise ConfigError(path, f"over {_MAX_BYTES} bytes", "a config has a few thousand")
        text = data.decode()
    except OSError as error:
        raise ConfigError(path, f"cannot be read ({error.strerror})", "give a YAML file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(path, f"is not YAML (not UTF-8 at byte {error.start})", "save it as UTF-8") from error
    raw = yaml.parse(text, path)
    if not isinstance(raw, dict):
        raise ConfigError(path, f"holds {type(raw).__name__}", "a mapping with source, output and features")
    raw = _anchored(raw, os.path.dirname(os.path.abspath(path)))
    for override in overrides or []:
        _override(raw, override)
    return parse(raw)


def parse(raw: dict[str, Any]) -> PipelineConfig:
    """Returns a config from plain values.

    Raises:
        ConfigError: a mistake, or a URL with a password or a signature.
    """
    _refuse_secrets(raw, ())
    try:
        return PipelineConfig.model_validate(raw)
    except ValidationError as error:
        raise config_error(error, raw) from None


def _refuse_secrets(value: Any, where: tuple[str, ...]) -> None:
    """Raises ``ConfigError`` if a key or a value is a URL with a password or a signature."""
    if isinstance(value, str) and has_secret(value):
        raise ConfigError(".".join(where), *_SECRET)
    if isinstance(value, dict):
        for key in value:
            if isinstance(key, str) and has_secret(key):
                _refuse_secrets(key, (*where, "(a key)"))
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        _refuse_secrets(item, (*where, str(key)))


def here(config: PipelineConfig) -> PipelineConfig:
    """Returns ``config`` with absolute paths, since workers have a different working directory."""
    features = {}
    for name, feature in config.features.items():
        head, tokenizer = feature.head, feature.tokenizer
        if head.kind == "linear":
            head = head.model_copy(update={"weights": storage.absolute(head.weights)})
        if tokenizer.kind == "text" and tokenizer.checkpoint is not None and os.path.isdir(tokenizer.checkpoint):
            tokenizer = tokenizer.model_copy(update={"checkpoint": storage.absolute(tokenizer.checkpoint)})
        features[name] = feature.model_copy(update={"head": head, "tokenizer": tokenizer})
    output = config.output.model_copy(update={"path": storage.absolute(config.output.path)})
    metrics = config.metrics
    if metrics.textfile is not None:
        metrics = metrics.model_copy(update={"textfile": storage.absolute(metrics.textfile)})
    return config.model_copy(update={"features": features, "output": output, "metrics": metrics})


def digest(section: Any) -> str:
    """Returns the sha256 of plain values in canonical JSON, in hexadecimal digits."""
    return hashlib.sha256(json.dumps(section, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _anchored(value: Any, folder: str) -> Any:
    """Returns ``value`` with ``folder`` in front of paths that begin with ``./`` or ``../``."""
    if isinstance(value, dict):
        return {key: _anchored(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [_anchored(item, folder) for item in value]
    if isinstance(value, str) and value.startswith(("./", "../")):
        return os.path.normpath(os.path.join(folder, value))
    return value


def _override(raw: dict[str, Any], override: str) -> None:
    """Sets one ``dotted.key=value`` in ``raw``. Raises ``ConfigError``."""
    if has_secret(override):  # before the split: the first "=" may be part of a URL
        raise ConfigError("--set", *_SECRET)
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError("--set", repr(override), "write dotted.key=value")
    value = yaml.parse(text, f"--set {key}")
    section: Any = raw
    *parents, last = key.split(".")
    if len(parents) > _MAX_PARENTS:
        raise ConfigError(f"--set {key}", f"{len(parents)} levels", "no config is so deep")
    for depth, name in enumerate(parents):
        section = section.setdefault(name, {})
        if not isinstance(section, dict):
            found = ".".join(parents[: depth + 1])
            raise ConfigError(f"--set {key}", f"{found} is {section!r}, not a section", "name a key of a section")
    section[last] = value
