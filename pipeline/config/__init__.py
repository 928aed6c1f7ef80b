"""The config of an extraction, typed, frozen and validated; and its features, bound to their checkpoints.

models.py              PipelineConfig and its sections; those of a family are defined in the family's folder
nightly.py             NightlyConfig, the section `nightly`
loading.py             a config from a YAML file and overrides
_explain.py            errors of pydantic as one line: where, what was found, what is allowed
yaml.py                YAML as plain values, without tags, duplicate keys or excessive size
features.py            features bound to their checkpoints: tokenizer, encoder, head, columns, fingerprint
_feature_identity.py   what decides the values of one feature
identity.py            compares what decides a feature's values with what a dataset was made with
bound.py               a config with its bound features

It imports the families (`sources`, `decoders`, `tokenizers`, `encoders`, `heads`), whose configs are parts of it.
"""

from __future__ import annotations

from pipeline.config.loading import digest, here, load, parse
from pipeline.config.models import (
    ComputeConfig,
    FailureConfig,
    FeatureConfig,
    PipelineConfig,
    PoolConfig,
    StoreConfig,
    WindowConfig,
)
from pipeline.dataset.output import OutputConfig

__all__ = [
    "ComputeConfig",
    "FailureConfig",
    "FeatureConfig",
    "OutputConfig",
    "PipelineConfig",
    "PoolConfig",
    "StoreConfig",
    "WindowConfig",
    "digest",
    "here",
    "load",
    "parse",
]
