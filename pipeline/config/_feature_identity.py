"""What decides the values of one feature: its settings, and the contents of the files that they name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from pipeline.checkpoint.checkpoint import Checkpoint, of_tokenizer
from pipeline.checkpoint.digests import file_sha256
from pipeline.checkpoint.fetched import path_of_file
from pipeline.config.identity import REVISIONS
from pipeline.config.models import FeatureConfig, PipelineConfig
from pipeline.tokenizers.text import TextTokenizerConfig


def feature_identity(
    feature: FeatureConfig,
    config: PipelineConfig,
    checkpoint: Checkpoint | None,
    weights: str | None,
    space: str,
    dump: Callable[[BaseModel], dict[str, Any]],
) -> dict[str, Any]:
    """Returns what decides the values of a feature, as plain values.

    Args:
        weights: sha256 of the checkpoint's weights. None: there is no checkpoint.
        space: the space of its embeddings.
        dump: returns a section of the config as plain values.
    """
    values = dump(feature)
    values.pop("pool", None)
    for runtime in ("device", "batch_size", "batch_s", "batch_tokens", "max_s", "checkpoint", "revision"):
        values["encoder"].pop(runtime, None)
    # a file counts by its content, not by its path
    if path := values.get("head", {}).get("weights"):
        values["head"]["weights"] = file_sha256(path_of_file(path, "head.weights"))
    if name := values["tokenizer"].get("checkpoint"):
        revision = values["tokenizer"].pop("revision", None)
        found = of_tokenizer(name, revision, "tokenizer.checkpoint")
        values["tokenizer"]["checkpoint"] = found.preprocessing_sha256()
    window = dump(config.window)
    window.pop("max_windows", None)
    decoders = dump(config.decoders)
    decoders.pop("limits", None)
    return {
        "decoding": REVISIONS[feature.modality],
        "feature": values,
        "space": space,
        "weights": weights,
        "preprocessing": checkpoint.preprocessing_sha256() if checkpoint else None,
        "window": window,
        "cut": _cutting_tokenizer(feature, config, dump),
        "decoders": _without_limits(decoders),
    }


def _without_limits(values: dict[str, Any]) -> dict[str, Any]:
    """Returns ``values`` without the keys ``max_...``: a limit decides whether there is a value, never which one."""
    plain = {name: value for name, value in values.items() if not name.startswith("max_")}
    return {name: _without_limits(value) if isinstance(value, dict) else value for name, value in plain.items()}


def all_keys(section: BaseModel) -> dict[str, Any]:
    """Returns a section as plain values, with the keys that are at their default."""
    return section.model_dump(mode="json")


def _cutting_tokenizer(
    feature: FeatureConfig, config: PipelineConfig, dump: Callable[[BaseModel], dict[str, Any]]
) -> dict[str, Any] | None:
    """Returns the settings of the tokenizer that cuts the texts of this feature, if it is that of another feature."""
    name = config.text_windows()
    if feature.modality != "text" or name is None or config.features[name] is feature:
        return None
    cutter = config.features[name]
    tokenizer = cutter.tokenizer
    assert isinstance(tokenizer, TextTokenizerConfig), "only texts are cut by tokens"
    named: str = getattr(cutter.encoder, "checkpoint", None) or tokenizer.checkpoint or ""
    revision: str | None = getattr(cutter.encoder, "revision", None) or tokenizer.revision
    values = {key: value for key, value in dump(tokenizer).items() if key not in ("checkpoint", "revision")}
    return {**values, "preprocessing": of_tokenizer(named, revision, f"features.{name}").preprocessing_sha256()}
