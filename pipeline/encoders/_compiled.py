"""A model's repeated layers through `torch.compile`, one by one: of equal layers the code is made once, whatever calls
them stays as it is. https://docs.pytorch.org/tutorials/recipes/regional_compilation.html"""

from __future__ import annotations

import torch

from pipeline.errors import ConfigError, describe


def compile_layers(model: torch.nn.Module, device: torch.device, where: str) -> None:
    """Each layer of each list of layers is compiled when it is first called.

    Raises:
        ConfigError: nothing can be compiled for ``device`` on this machine. ``where``: the checkpoint's place in the
            config.
    """
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


def _trial(values: torch.Tensor) -> torch.Tensor:
    return values * 2 + 1
