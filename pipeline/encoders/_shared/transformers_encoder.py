"""Base class of the encoders that run a `transformers` model, and its config."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from pipeline.checkpoint.checkpoint import Checkpoint, CheckpointConfig
from pipeline.core.errors import ConfigError, SampleError
from pipeline.core.media import Modality
from pipeline.encoders._shared.adaptive_batch import AdaptiveBatchSize
from pipeline.encoders._shared.loading import check_int8, load_pretrained, prepare_model, shared_model
from pipeline.encoders._shared.microbatcher import MicroBatcher, PassLimits
from pipeline.tokenizers.base import ModelInputs

if TYPE_CHECKING:
    import torch

    from pipeline.encoders.base import Encoded, EncoderSpec


Dtype = Literal["auto", "float32", "bfloat16", "float16", "int8"]
Device = Literal["auto", "cpu", "cuda"]
_BATCH_SIZE = {"cpu": 32, "cuda": 128}


class TransformersEncoderConfig(CheckpointConfig):
    """Options that every `transformers` encoder has."""

    dtype: Dtype = "float32"
    """Arithmetic of the forward pass. ``auto``: the dtype in which the checkpoint was saved. ``int8``: for the linear
    layers only, the rest is float32; requires ``device: cpu``."""
    device: Device = "auto"
    """``auto``: CUDA if available, else the CPU."""
    compile: bool = False
    """With ``device: cuda``: compile the model's layers with `torch.compile`. Its kernels round differently. The first
    passes of a process take seconds longer."""
    batch_size: int | None = Field(default=None, ge=1)
    """Rows in one forward pass, temporarily fewer where memory runs out; null: 32 on a CPU, 128 on a GPU, where small
    models take as long for 32."""


class TransformersEncoder(ABC):
    """Base class of the encoders that run a `transformers` model.

    A family implements ``spec``, ``load`` and ``forward``. It overrides ``bucket``, ``length``, ``max_units`` and
    ``splits_rows`` if its rows have different sizes. Constructing only stores the arguments; ``setup`` loads the model.
    """

    model_types: tuple[str, ...] = ()
    """Values of ``model_type`` in the checkpoint's config that the family takes."""
    modalities: tuple[Modality, ...] = ()
    tokenizer_kinds: tuple[str, ...] = ()
    saturating_units: int | None = None
    """Units of ``length`` from which on larger passes are no faster on a CPU core: passes with more are cut to reduce
    padding. None: they are not cut."""

    def __init__(
        self, config: TransformersEncoderConfig, checkpoint: Checkpoint, modality: Modality, tokenizer: Any
    ) -> None:
        self.config = config
        self.checkpoint = checkpoint
        self.modality: Modality = modality
        self.tokenizer = tokenizer
        self.adaptive_batch = AdaptiveBatchSize()
        self.token_dtype = np.dtype(np.float32)
        self._compiled_shapes: set[Hashable] = set()

    # -- on the driver -------------------------------------------------------------------------

    def check(self, where: str) -> None:
        """Raises ``ConfigError`` for a config that cannot work. ``where``: the feature's path in the config."""
        self.checkpoint.require(*self.model_types)
        if self.modality not in self.modalities:
            raise ConfigError(
                f"{where}.modality", f"{self.modality!r}", f"this encoder takes {', '.join(self.modalities)}"
            )
        if self.tokenizer.kind not in self.tokenizer_kinds:
            raise ConfigError(
                f"{where}.tokenizer.kind",
                f"{self.tokenizer.kind!r}",
                f"this encoder takes {', '.join(self.tokenizer_kinds)}",
            )
        if self.config.dtype == "int8" and self.config.device != "cpu":
            raise ConfigError(
                f"{where}.encoder.dtype",
                f"'int8' with device: {self.config.device}",
                "device: cpu as well, or another dtype for a GPU",
            )
        if self.config.compile and self.config.device != "cuda":
            raise ConfigError(
                f"{where}.encoder.compile",
                f"true with device: {self.config.device}",
                "device: cuda as well, so that all rows are rounded alike",
            )

    @abstractmethod
    def spec(self) -> EncoderSpec: ...

    def model_config(self) -> Any:
        """The checkpoint's `transformers` config, with its defaults. Imports transformers."""
        return self.checkpoint.model_config()

    # -- in the worker -------------------------------------------------------------------------

    def import_code(self) -> None:
        import_module("torch")
        configuration = type(self.model_config()).__module__
        with suppress(ImportError):  # a model whose modules have other names is imported when it is loaded
            import_module(configuration.replace(".configuration_", ".modeling_"))

    def setup(self) -> None:
        import torch

        torch.backends.cuda.matmul.allow_tf32 = False  # float32 means float32
        torch.backends.cudnn.allow_tf32 = False
        self.device = torch.device(
            ("cuda" if torch.cuda.is_available() else "cpu") if self.config.device == "auto" else self.config.device
        )
        if self.config.dtype == "int8":
            check_int8(f"{self.checkpoint.where.removesuffix('.checkpoint')}.dtype")
        self.model = shared_model(self.load_key(), self._load_prepared)
        self.dtype = next(self.model.parameters()).dtype

    def load_key(self) -> Hashable:
        """Encoders of one process with equal keys share one model in memory."""
        return (*self._weights_key(), self.modality)

    def _weights_key(self) -> tuple[Hashable, ...]:
        return (type(self), self.checkpoint.path, self.config.dtype, str(self.device), self.config.compile)

    def _load_prepared(self) -> torch.nn.Module:
        return prepare_model(
            self.load(),
            self.device,
            is_int8=self.config.dtype == "int8",
            is_compiled=self.config.compile,
            where=self.checkpoint.where,
        )

    @abstractmethod
    def load(self) -> torch.nn.Module:
        """The model in the config's dtype; usually ``self.from_pretrained(SomeModel)``."""

    def from_pretrained(self, model_class: Any, unused: tuple[str, ...] = (), **options: Any) -> Any:
        """Loads ``model_class`` from the checkpoint. See ``load_pretrained``."""
        return load_pretrained(model_class, self.checkpoint, self.config.dtype, unused, **options)

    def encode(self, rows: Sequence[ModelInputs], want_tokens: bool) -> list[Encoded | SampleError]:
        """One result per row, in the order given. See ``MicroBatcher.run``."""
        import torch

        limits = PassLimits(self._max_rows, self.max_units(), self.saturating_units, self.splits_rows)
        shapes = self._compiled_shapes if self.config.compile else None
        batcher = MicroBatcher(self.forward, self.bucket, self.length, limits, self.adaptive_batch, shapes, self.device)
        with torch.inference_mode():
            return batcher.run(rows, want_tokens)

    @property
    def _max_rows(self) -> int:
        return self.config.batch_size or _BATCH_SIZE[self.device.type]

    @property
    def batch_size(self) -> int:
        """Rows, or pieces of rows, in one forward pass: the configured number, or fewer if that does not fit."""
        return self.adaptive_batch.scale(self._max_rows)

    @property
    def splits_rows(self) -> bool:
        """True if ``forward`` runs one row in steps of ``batch_size`` pieces (frames of a video, parts of a sound)."""
        return False

    def bucket(self, row: ModelInputs) -> Hashable:
        """Rows of equal bucket may share a batch. Default: equal shapes of all inputs."""
        return tuple((name, array.shape) for name, array in sorted(row.inputs.items()))

    def length(self, row: ModelInputs) -> int:
        """Size of a row in units such as tokens or samples. Rows are batched in this order, to reduce padding."""
        return 0

    def max_units(self) -> float | None:
        """Maximum units of ``length`` in one micro-batch, padding included; None: no limit."""
        return None

    @abstractmethod
    def forward(self, rows: Sequence[ModelInputs], want_tokens: bool) -> list[Encoded | SampleError]:
        """Runs one micro-batch of one bucket, in order, in inference mode."""
