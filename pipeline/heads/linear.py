"""Linear projection into a shared space, with weights from a safetensors file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pipeline.checkpoint.fetched import path_of_file
from pipeline.core.errors import ConfigError, describe
from pipeline.encoders.base import Encoded, EncoderSpec
from pipeline.heads.base import unit
from pipeline.storage.local_files import is_hole

_FLOATS = ("F64", "F32", "F16", "BF16")


class LinearConfig(BaseModel):
    """Config of the projection ``y = W x + b``. The metadata of its file names the space."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["linear"]
    weights: str = Field(min_length=1)
    """A safetensors file, or its URL on an object store: ``weight`` [dim, encoder's dim], optional ``bias`` [dim];
    metadata ``space``, optional ``normalize`` (``true`` or ``false``, default ``true``)."""


class LinearHead:
    """Projects pooled vectors [B, encoder's dim] to [B, dim]."""

    def __init__(self, config: LinearConfig, spec: EncoderSpec) -> None:
        self.config, self.spec = config, spec
        self.dim, self.space, self.normalized = 0, "", True

    def check(self, where: str) -> None:
        """Checks the file's header, without reading the weights.

        Raises:
            ConfigError: the file is missing or not safetensors, lacks ``weight`` or ``space``, or its dimensions do
                not match the encoder's.
        """
        where = f"{where}.weights"
        shapes, dtypes, metadata = self._header(where)
        space, normalize = metadata.get("space", ""), metadata.get("normalize", "true")
        if "weight" not in shapes or len(shapes["weight"]) != 2:
            tensors = [f"{name} {shape}" for name, shape in sorted(shapes.items())]
            found = ", ".join([*tensors[:10], *(["…"] if len(tensors) > 10 else [])]) or "none"
            raise ConfigError(where, f"tensors {found}", "it must hold `weight` of two dimensions")
        if not space:
            raise ConfigError(where, "no `space` in its metadata", "name the space that the head was fitted for")
        if normalize not in ("true", "false"):
            raise ConfigError(where, f"`normalize` {normalize!r} in its metadata", "true or false")
        if wrong := sorted({dtype for dtype in dtypes.values() if dtype not in _FLOATS}):
            raise ConfigError(where, f"values of type {', '.join(wrong)}", f"one of: {', '.join(_FLOATS)}")
        dim, width = shapes["weight"]
        if width != self.spec.dim:
            raise ConfigError(where, f"weight {shapes['weight']}", f"the encoder's vectors have {self.spec.dim} values")
        if "bias" in shapes and shapes["bias"] != [dim]:
            raise ConfigError(where, f"bias {shapes['bias']}", f"[{dim}], as many as weight has rows")
        self.dim, self.space, self.normalized = dim, space, normalize == "true"

    def _header(self, where: str) -> tuple[dict[str, list[int]], dict[str, str], dict[str, str]]:
        """Shapes of all tensors, dtypes of ``weight`` and ``bias``, and the metadata."""
        from safetensors import safe_open

        path = path_of_file(self.config.weights, where)
        if not os.path.isfile(path):
            raise ConfigError(where, f"no file {path!r}", "give a safetensors file")
        if is_hole(os.stat(path)):
            raise ConfigError(where, f"{path!r} is nearly all hole", "copy it again")
        try:
            with safe_open(path, framework="np") as file:
                slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  # the file has keys, and is not iterable
                shapes = {name: list(one.get_shape()) for name, one in slices.items()}
                dtypes = {name: str(slices[name].get_dtype()) for name in ("weight", "bias") if name in slices}
                return shapes, dtypes, dict(file.metadata() or {})
        except Exception as error:  # the library has its own exception types
            raise ConfigError(
                where, f"{path!r} is no safetensors file ({describe(error)})", "save it as one"
            ) from error

    def setup(self) -> None:
        from safetensors import safe_open

        path = path_of_file(self.config.weights, "head.weights")
        with safe_open(path, framework="pt") as file:  # numpy has no bfloat16
            names = [name for name in ("weight", "bias") if name in file.keys()]  # noqa: SIM118  # the file has keys, and is not iterable
            tensors = {name: file.get_tensor(name).float().numpy() for name in names}
        self.weight, self.bias = tensors["weight"], tensors.get("bias")

    def project(self, rows: Sequence[Encoded]) -> np.ndarray:
        pooled = np.stack([row.pooled for row in rows if row.pooled is not None]).astype(np.float32, copy=False)
        vectors: np.ndarray = pooled @ self.weight.T
        if self.bias is not None:
            vectors = vectors + self.bias
        return unit(vectors) if self.normalized else vectors


def save(path: str, weight: np.ndarray, space: str, bias: np.ndarray | None = None, normalize: bool = True) -> None:
    """Writes the file of a head.

    Args:
        weight: [dim, encoder's dim].
        space: name of the space.
        bias: [dim].
        normalize: True if vectors are L2-normalised.
    """
    from safetensors.numpy import save_file

    tensors: dict[str, Any] = {"weight": np.ascontiguousarray(weight, np.float32)}
    if bias is not None:
        tensors["bias"] = np.ascontiguousarray(bias, np.float32)
    save_file(tensors, path, metadata={"space": space, "normalize": str(normalize).lower()})
