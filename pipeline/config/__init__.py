"""Everything that one extraction is, typed, frozen and validated; and its features, bound to their checkpoints.

models.py     PipelineConfig and its sections, but for those of the families, which are beside their members
loading.py    a config from a YAML file and overrides
_explain.py   errors of pydantic as one line: where, what was found, what is allowed
yaml.py       YAML as configs want it
features.py   a feature bound to its checkpoint: tokenizer, encoder, head, columns, fingerprint
identity.py   what decides a feature's values, compared with what a dataset was made with
bound.py      a config with its bound features

It imports the families (`sources`, `decoders`, `tokenizers`, `encoders`, `heads`), whose configs it is made of.
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
