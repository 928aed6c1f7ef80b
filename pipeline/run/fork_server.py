"""The fork server of a run on this machine: a process that binds the features, and from which workers fork."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from pipeline import config as configs
from pipeline import decoders
from pipeline import engine as engines
from pipeline.checkpoint.checkpoint import remember_weights
from pipeline.config import features as binding
from pipeline.config.features import BoundFeature
from pipeline.config.models import EngineName, PipelineConfig
from pipeline.run import _binding_cache
from pipeline.run.pipeline import wants_gpu
from pipeline.sandbox import ForkServer
from pipeline.storage import settings as storage_settings


class RunForkServer:
    """Starts a fork server immediately if the features must be bound, else with `start` or when its address is read.

    Args:
        config: the config of the run, with absolute paths.
    """

    def __init__(self, config: PipelineConfig) -> None:
        self.config = config
        self._server: ForkServer | None = None
        self._is_ready = False
        """Whether the server has imported what workers need."""
        self._started = time.time()
        self._features = _binding_cache.load(config)
        if self._features is None:
            self.start()

    @property
    def address(self) -> str:
        """The address from which workers fork. Waits until the server has imported what they need.

        Raises:
            ConfigError: see `pipeline.config.features.bind`.
            TesseraError: the fork server ended.
        """
        self.features()
        server = self.start()
        if not self._is_ready:
            server.prepared()
            self._is_ready = True
        return server.address

    def features(self) -> tuple[BoundFeature, ...]:
        """Returns the bound features. Waits for the fork server unless they are known from an earlier run.

        Raises:
            ConfigError: see `pipeline.config.features.bind`.
            TesseraError: the fork server ended.
        """
        if self._features is None:
            self._features, self._is_ready = self.start().prepared(), True
            _binding_cache.store(self.config, self._features, self._started)
        return self._features

    def close(self) -> None:
        """Ends the fork server, if there is one, and all that forked from it."""
        if self._server is not None:
            self._server.close()
            self._server, self._is_ready = None, False

    def start(self) -> ForkServer:
        """Returns the fork server; starts it first if it does not run."""
        if self._server is None and self._features is None:
            self._server = ForkServer(prepare, self.config)
        elif self._server is None:
            self._server = ForkServer(warm_up, self.config, self._features)
        return self._server


@contextlib.contextmanager
def started(config: PipelineConfig, engine: EngineName | None = None) -> Iterator[RunForkServer | None]:
    """Supplies the fork server for the body, and ends it afterwards.

    Args:
        engine: what runs the pipeline, instead of ``engine.kind``.

    Yields:
        The server. Stages fork from it on the engine ``local``; elsewhere it only binds the features. None: the run is
        inline, in this process.
    """
    storage_settings.use(config.storage)
    name = engine or engines.choose(config.engine, config.compute, wants_gpu(config))[0]
    if name == "inline":
        yield None
        return
    with contextlib.closing(RunForkServer(configs.here(config))) as server:
        yield server


def warm_up(config: PipelineConfig, features: tuple[BoundFeature, ...]) -> None:
    """`prepare`, for features that are known. Does not read their weights again, which takes seconds for a gigabyte.
    Runs in the fork server."""
    for one in features:
        if one.checkpoint is not None and one.weights_sha256 is not None:
            remember_weights(one.checkpoint.path, one.weights_sha256)
    prepare(config)


def prepare(config: PipelineConfig) -> tuple[BoundFeature, ...]:
    """Binds the features, and imports everything that decodes, tokenizes and encodes them. Runs in the fork server.

    Raises:
        ConfigError: see `pipeline.config.features.bind`.
    """
    features = binding.bind(config)
    decoders.load({feature.modality for feature in features}, config.decoders)
    for feature in features:
        feature.encoder().import_code()
    return features
