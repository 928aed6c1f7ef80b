"""What all encoders that run a `transformers` model share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakValueDictionary

import numpy as np
from pydantic import Field

from pipeline.checkpoint.checkpoint import Checkpoint, CheckpointConfig
from pipeline.checkpoint.files import bounded_memory
from pipeline.core.errors import ConfigError, SampleError, StorageError, describe, out_of_memory
from pipeline.core.media import Modality
from pipeline.core.read_write_lock import ReadWriteLock
from pipeline.encoders._shared.adaptive_batch import AdaptiveBatchSize
from pipeline.encoders._shared.device import upload_stacked
from pipeline.encoders._shared.microbatches import first_pass, tight
from pipeline.encoders._shared.weights import quiet
from pipeline.storage.retry import is_transient
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
    """Arithmetic of the forward pass. ``auto``: as the checkpoint was saved. ``int8``: of the linear layers, the rest
    in float32; with ``device: cpu`` only."""
    device: Device = "auto"
    """``auto``: CUDA where there is one, else the CPU."""
    compile: bool = False
    """With ``device: cuda``: the model's layers as `torch.compile` makes them, other kernels with other roundings. The
    first passes of a process take seconds for it."""
    batch_size: int | None = Field(default=None, ge=1)
    """Rows in one forward pass, fewer for a while where memory runs out; null: 32 on a CPU, 128 on a GPU, where small
    models are as slow with 32."""


PASSES = ReadWriteLock()
"""Forward passes of this process: one row that finds no memory has it all to itself."""
_MODELS: WeakValueDictionary[Hashable, Any] = WeakValueDictionary()


def shared_model(key: Hashable, load: Callable[[], Any]) -> Any:
    """The model of ``key``, loaded once a process for as long as an encoder holds it."""
    model = _MODELS.get(key)
    if model is None:
        _MODELS[key] = model = load()
    return model


class TransformersEncoder(ABC):
    """Shared machinery of the encoders that run a `transformers` model."""

    model_types: tuple[str, ...] = ()
    modalities: tuple[Modality, ...] = ()
    tokenizer_kinds: tuple[str, ...] = ()
    enough: int | None = None
    """Units of ``length`` in a pass that a CPU needs: beyond them it is cut for less padding. None: it is not cut."""

    def __init__(
        self, config: TransformersEncoderConfig, checkpoint: Checkpoint, modality: Modality, tokenizer: Any
    ) -> None:
        self.config = config
        self.checkpoint = checkpoint
        self.modality: Modality = modality
        self.tokenizer = tokenizer
        self.fit = AdaptiveBatchSize()
        self.token_dtype = np.dtype(np.float32)
        self._compiled: set[Hashable] = {None}
        """Shapes of passes that went well; None: nothing is to be compiled."""

    # -- on the driver -------------------------------------------------------------------------

    def check(self, where: str) -> None:
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
                "device: cpu beside it, or another dtype for a GPU",
            )
        if self.config.compile and self.config.device != "cuda":
            raise ConfigError(
                f"{where}.encoder.compile",
                f"true with device: {self.config.device}",
                "device: cuda beside it, so that all rows have the same roundings",
            )

    @abstractmethod
    def spec(self) -> EncoderSpec: ...

    def model_config(self) -> Any:
        """The checkpoint's `transformers` config, defaults filled in. Imports transformers."""
        return self.checkpoint.model_config()

    # -- in the worker -------------------------------------------------------------------------

    def import_code(self) -> None:
        import_module("torch")
        configuration = type(self.model_config()).__module__
        with suppress(ImportError):  # a model whose files have other names is imported when it is loaded
            import_module(configuration.replace(".configuration_", ".modeling_"))

    def setup(self) -> None:
        import torch

        torch.backends.cuda.matmul.allow_tf32 = False  # float32 means float32
        torch.backends.cudnn.allow_tf32 = False
        self.device = torch.device(
            ("cuda" if torch.cuda.is_available() else "cpu") if self.config.device == "auto" else self.config.device
        )
        if self.config.dtype == "int8" and not import_module("pipeline.encoders._shared.int8").is_supported():
            raise ConfigError(
                f"{self.checkpoint.where.removesuffix('.checkpoint')}.dtype",
                "'int8' on a CPU without AVX512-VNNI",
                "float32 there: PyTorch's int8 product is slower without it, and so is bfloat16 without AVX-512",
            )
        self.model = shared_model(self.load_key(), self._loaded)
        self.dtype = next(self.model.parameters()).dtype

    def load_key(self) -> Hashable:
        """Encoders of equal key in one process share one model in memory."""
        return (*self._loaded_as(), self.modality)

    def _loaded_as(self) -> tuple[Hashable, ...]:
        return (type(self), self.checkpoint.path, self.config.dtype, str(self.device), self.config.compile)

    def _loaded(self) -> torch.nn.Module:
        model = self.load().eval().requires_grad_(False)
        if self.config.dtype == "int8":
            model = import_module("pipeline.encoders._shared.int8").quantise(model)
        model = model.to(self.device)
        if self.config.compile:
            import_module("pipeline.encoders._shared.compiled").compile_layers(
                model, self.device, self.checkpoint.where
            )
        return model

    @abstractmethod
    def load(self) -> torch.nn.Module:
        """The model in the config's dtype; usually ``self.from_pretrained(SomeModel)``."""

    def from_pretrained(self, model_class: Any, unused: tuple[str, ...] = (), **options: Any) -> Any:
        """``model_class`` from the checkpoint: safetensors only, no remote code.

        `transformers` only warns of weights that the file has not, and draws them at random, anew in each process.
        ``unused``: first or last parts of names of weights that the forward pass never reads.

        Raises:
            ConfigError: a weight is missing, or of another shape than the config says; or the config asks for what a
                checkpoint may not.
        """
        self.model_config()  # checks where the model's attention comes from
        try:
            with quiet(), bounded_memory(self.checkpoint.weights_bytes()):
                model, info = model_class.from_pretrained(
                    self.checkpoint.path,
                    dtype="float32" if self.config.dtype == "int8" else self.config.dtype,
                    use_safetensors=True,
                    trust_remote_code=False,
                    local_files_only=True,
                    output_loading_info=True,
                    **options,
                )
        except Exception as error:  # each model class raises its own
            if isinstance(error, OSError) and is_transient(error):
                raise StorageError(f"cannot read {self.checkpoint.name!r} ({describe(error)})") from error
            raise ConfigError(
                self.checkpoint.where,
                f"no model can be built from {self.checkpoint.name!r} ({describe(error)})",
                "give a checkpoint whose weights are those of its config.json",
            ) from error
        missing = sorted(n for n in info["missing_keys"] if not (n.startswith(unused) or n.endswith(unused)))
        if missing:
            raise ConfigError(
                self.checkpoint.where,
                f"{len(missing)} weights are missing from the checkpoint, {missing[0]!r} among them",
                "give a checkpoint of the whole encoder",
            )
        return model

    def encode(self, rows: Sequence[ModelInputs], want_tokens: bool) -> list[Encoded | SampleError]:
        """Rows in the order given; batched by ``bucket``, within a bucket by length.

        Where memory runs out the micro-batch is halved, and grows again later; a row that does not fit alone gives a
        ``SampleError`` (``memory``).
        """
        import torch

        done: list[Encoded | SampleError | None] = [None] * len(rows)
        buckets: dict[Hashable, list[int]] = {}
        for index, row in enumerate(rows):
            buckets.setdefault(self.bucket(row), []).append(index)
        with torch.inference_mode():
            for members in buckets.values():
                members.sort(key=lambda i: self.length(rows[i]))
                ordered = [rows[i] for i in members]
                for index, encoded in zip(members, self._in_passes(ordered, want_tokens), strict=True):
                    done[index] = encoded
        return [row for row in done if row is not None]

    def _in_passes(self, rows: Sequence[ModelInputs], want_tokens: bool) -> Iterator[Encoded | SampleError]:
        """Rows of one bucket, ordered by length, a micro-batch after the other."""
        lengths = [self.length(row) for row in rows]
        start = 0
        while start < len(rows):
            share = self.fit.share
            group = self._next_pass(lengths, start)
            encoded = self._tried([rows[i] for i in group], want_tokens)
            if isinstance(encoded, str) and len(group) > 1:
                if self.fit.share >= share:  # no other call has halved it meanwhile
                    self.fit.halve()
                while not self.in_pieces and len(self._next_pass(lengths, start)) > len(group) // 2:
                    self.fit.halve()
                continue
            if isinstance(encoded, str):
                encoded = [self._alone(rows[start], want_tokens, encoded)]
            yield from encoded
            start = group.stop

    def _next_pass(self, lengths: Sequence[int], start: int) -> range:
        most = self.max_units()
        group = first_pass(lengths, start, self.batch_size, None if most is None else most * self.fit.share)
        return tight(lengths, group, self.enough) if self.enough and self.device.type == "cpu" else group

    def _tried(
        self, rows: Sequence[ModelInputs], want_tokens: bool, alone: bool = False
    ) -> list[Encoded | SampleError] | str:
        """What ``forward`` gives, or in one line where memory ran out."""
        import torch

        shape = self._shape(rows) if self.config.compile else None
        with PASSES.write() if alone or shape not in self._compiled else PASSES.read():
            try:
                encoded = self.forward(rows, want_tokens)
                self.fit.went_well()
                self._compiled.add(shape)
                return encoded
            except Exception as error:
                if not out_of_memory(error):
                    raise
                told = describe(error)
            self.fit.ran_out()  # only here are the tensors of the failed pass free
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        return told

    def _shape(self, rows: Sequence[ModelInputs]) -> Hashable:
        """What a pass' kernels are compiled for: while they are, no other may run through layers of that kind."""
        pieces = sum(len(array) for row in rows for array in row.inputs.values()) if self.in_pieces else 0
        return (len(rows), self.bucket(rows[-1]), self.length(rows[-1]), pieces)

    def _alone(self, row: ModelInputs, want_tokens: bool, told: str) -> Encoded | SampleError:
        """A row that did not fit: again while no other call holds memory, then in smaller steps, where it has some."""
        halved = 0
        if self.device.type == "cuda":
            encoded = self._tried([row], want_tokens, alone=True)
            if not isinstance(encoded, str):
                return encoded[0]
        while self.in_pieces and self.batch_size > 1:
            self.fit.halve()
            halved += 1
            encoded = self._tried([row], want_tokens, alone=True)
            if not isinstance(encoded, str):
                return encoded[0]
        self.fit.share = min(1.0, self.fit.share * 2**halved)  # it says nothing about other rows
        return SampleError("memory", told)

    @property
    def batch_size(self) -> int:
        """Rows, or pieces of rows, in one forward pass: the config's, or as many as fit into memory."""
        return self.fit.of(self.config.batch_size or _BATCH_SIZE[self.device.type])

    @property
    def in_pieces(self) -> bool:
        """True if ``forward`` runs one row in steps of ``batch_size`` pieces (a video's frames, parts of a sound)."""
        return False

    def bucket(self, row: ModelInputs) -> Hashable:
        """Rows of equal bucket may share a batch. Default: equal shapes of all inputs."""
        return tuple((name, array.shape) for name, array in sorted(row.inputs.items()))

    def length(self, row: ModelInputs) -> int:
        """Rows of a bucket are batched in this order, so that little is padded."""
        return 0

    def max_units(self) -> float | None:
        """Units of ``length`` in one micro-batch, padding included; None: any number."""
        return None

    @abstractmethod
    def forward(self, rows: Sequence[ModelInputs], want_tokens: bool) -> list[Encoded | SampleError]:
        """One micro-batch of one bucket, in order. Inference mode is on."""

    def stack(self, rows: Sequence[ModelInputs], name: str) -> torch.Tensor:
        """Input ``name`` of all rows as one tensor [B, ...] on the device."""
        return upload_stacked([row.inputs[name] for row in rows], self.device)
