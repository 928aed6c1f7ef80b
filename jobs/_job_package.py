"""What travels with a job: a config with absolute paths, and copies of Tessera's folders."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import config as configs
from pipeline import storage

if TYPE_CHECKING:
    from pipeline.config.models import PipelineConfig


def with_absolute_paths(config: PipelineConfig) -> PipelineConfig:
    """Returns a config whose local paths do not depend on the working directory."""
    config = configs.here(config)
    source = config.source.model_copy(update={"path": storage.absolute(config.source.path)})
    features = {}
    for name, feature in config.features.items():
        parts = {}
        for part in ("encoder", "tokenizer"):
            section = getattr(feature, part)
            named = getattr(section, "checkpoint", None)
            if named is not None and (named.startswith(("./", "../")) or os.path.isdir(named)):
                parts[part] = section.model_copy(update={"checkpoint": storage.absolute(named)})
        features[name] = feature.model_copy(update=parts)
    return config.model_copy(update={"source": source, "features": features})


def copy_of_package(module: Any, folder: Path) -> str:
    """Copies a package without what Python has cached in it, so that its digest depends on its code only."""
    target = folder / module.__name__
    shutil.copytree(Path(module.__file__).parent, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    return str(target)
