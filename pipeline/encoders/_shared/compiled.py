"""Compiles the repeated layers of a model with `torch.compile`, one by one.

Equal layers share one compilation, and the code that calls them is not compiled.
Source: https://docs.pytorch.org/tutorials/recipes/regional_compilation.html
"""

from __future__ import annotations

import atexit
import os

import torch

from pipeline.core.errors import ConfigError, describe
from pipeline.core.system import private_folder


def compile_layers(model: torch.nn.Module, device: torch.device, where: str) -> None:
    """Marks every layer in a ``ModuleList`` of ``model`` for compilation, which happens at its first call.

    Args:
        where: path of the checkpoint in the config, for errors.

    Raises:
        ConfigError: `torch.compile` does not work for ``device`` on this machine.
    """
    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = _cache_folder()
    try:
        torch.compile(_trial)(torch.ones(8, device=device)).sum().item()
    except Exception as error:  # Triton's, the C compiler's, PyTorch's own
        raise ConfigError(
            f"{where.removesuffix('.checkpoint')}.compile",
            f"true, and torch.compile does not work on this machine ({describe(error)})",
            "a C compiler and Triton installed, or leave it out",
        ) from error
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleList):
            for layer in module:
                layer.compile()


def _cache_folder() -> str:
    """A folder for compiled code that only this user can write.

    PyTorch's default is a folder with a predictable name in the system's temporary folder. Another user could create it
    first and put code into it.
    """
    folder = private_folder.of_user_cache("torchinductor")
    if folder is not None:
        return folder
    folder = private_folder.make("compiled")
    atexit.register(private_folder.remove, folder)
    return folder


def _trial(values: torch.Tensor) -> torch.Tensor:
    return values * 2 + 1
