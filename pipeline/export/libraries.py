"""Imports the optional libraries of exports."""

from __future__ import annotations

import importlib
from typing import Any

from pipeline.core.errors import ConfigError, describe

INSTALL = "pip install 'tessera[export]'"


def library(name: str) -> Any:
    """Returns the module ``name``. Raises ``ConfigError`` with what to install if it cannot be imported."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        is_missing = isinstance(error, ModuleNotFoundError) and error.name == name
        found = f"{name!r} is not installed" if is_missing else f"{name!r} cannot be imported ({describe(error)})"
        raise ConfigError("tessera[export]", found, INSTALL) from error
