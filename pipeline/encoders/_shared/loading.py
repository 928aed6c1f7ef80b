"""Loads a model from a checkpoint: safetensors only, no remote code, once per process."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from importlib import import_module
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from pipeline.checkpoint.checkpoint import Checkpoint
from pipeline.checkpoint.files import bounded_memory
from pipeline.core.errors import ConfigError, StorageError, describe
from pipeline.encoders._shared.weights import quiet
from pipeline.storage.retry import is_transient

if TYPE_CHECKING:
    import torch

_MODELS: WeakValueDictionary[Hashable, Any] = WeakValueDictionary()
"""Loaded models of this process, for as long as an encoder references them."""


def shared_model(key: Hashable, load: Callable[[], Any]) -> Any:
    """The model of ``key``. It is loaded by ``load`` unless this process already has it."""
    model = _MODELS.get(key)
    if model is None:
        _MODELS[key] = model = load()
    return model


def load_pretrained(
    model_class: Any, checkpoint: Checkpoint, dtype: str, unused: tuple[str, ...] = (), **options: Any
) -> Any:
    """Loads ``model_class`` from the checkpoint.

    `transformers` only logs a warning for weights that the checkpoint lacks, and initialises them at random,
    differently in each process. Here that is an error.

    Args:
        dtype: the config's dtype; with ``int8`` the weights are loaded in float32, to be quantised afterwards.
        unused: prefixes or suffixes of the names of weights that the forward pass never reads; they may be missing.
        options: further arguments of ``model_class.from_pretrained``.

    Raises:
        ConfigError: a weight is missing or has another shape than the config declares; or the config asks for
            something that a checkpoint may not.
        StorageError: the files could not be read this time.
    """
    checkpoint.model_config()  # checks where the model's attention code comes from
    try:
        with quiet(), bounded_memory(checkpoint.weights_bytes()):
            model, info = model_class.from_pretrained(
                checkpoint.path,
                dtype="float32" if dtype == "int8" else dtype,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                **options,
            )
    except Exception as error:  # each model class raises its own
        if isinstance(error, OSError) and is_transient(error):
            raise StorageError(f"cannot read {checkpoint.name!r} ({describe(error)})") from error
        raise ConfigError(
            checkpoint.where,
            f"no model can be built from {checkpoint.name!r} ({describe(error)})",
            "give a checkpoint whose weights are those of its config.json",
        ) from error
    missing = sorted(n for n in info["missing_keys"] if not (n.startswith(unused) or n.endswith(unused)))
    if missing:
        raise ConfigError(
            checkpoint.where,
            f"{len(missing)} weights are missing from the checkpoint, {missing[0]!r} among them",
            "give a checkpoint of the whole encoder",
        )
    return model


def check_int8(where: str) -> None:
    """Raises ``ConfigError`` on a CPU without int8 instructions. ``where``: path of the option in the config."""
    if not import_module("pipeline.encoders._shared.int8").is_supported():
        raise ConfigError(
            where,
            "'int8' on a CPU without AVX512-VNNI",
            "float32 there: PyTorch's int8 product is slower without it, and so is bfloat16 without AVX-512",
        )


def prepare_model(
    model: torch.nn.Module, device: torch.device, *, is_int8: bool, is_compiled: bool, where: str
) -> torch.nn.Module:
    """The loaded model ready for inference on ``device``: quantised and compiled as the config asks.

    Args:
        where: path of the checkpoint in the config, for errors.
    """
    model = model.eval().requires_grad_(False)
    if is_int8:
        model = import_module("pipeline.encoders._shared.int8").quantise(model)
    model = model.to(device)
    if is_compiled:
        import_module("pipeline.encoders._shared.compiled").compile_layers(model, device, where)
    return model
