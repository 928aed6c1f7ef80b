"""A model's repeated layers through `torch.compile`, one by one: of equal layers the code is made once, whatever calls
them stays as it is. https://docs.pytorch.org/tutorials/recipes/regional_compilation.html"""

from __future__ import annotations

import atexit
import os
import stat

import torch

from pipeline.core import private_folder
from pipeline.core.errors import ConfigError, describe


def compile_layers(model: torch.nn.Module, device: torch.device, where: str) -> None:
    """Each layer of each list of layers is compiled when it is first called.

    Raises:
        ConfigError: nothing can be compiled for ``device`` on this machine. ``where``: the checkpoint's place in the
            config.
    """
    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = _cache()
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


def _cache() -> str:
    """A folder of this user's own for the code that PyTorch makes and loads again. By itself it takes one in the
    system's temporary folder, of a name that everybody knows and may have made before."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = os.path.join(home, "tessera", "torchinductor")
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        found = os.stat(folder)
        if found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and os.access(folder, 7):
            return folder
    except OSError:
        pass
    folder = private_folder.make("compiled")
    atexit.register(private_folder.remove, folder)
    return folder


def _trial(values: torch.Tensor) -> torch.Tensor:
    return values * 2 + 1
