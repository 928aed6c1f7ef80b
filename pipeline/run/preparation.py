"""Checks of a config before a run: output, features and cluster."""

from __future__ import annotations

import time

from pipeline import config as configs
from pipeline import engine as engines
from pipeline import sources, storage
from pipeline.config import features as binding
from pipeline.config.bound import BoundConfig
from pipeline.config.features import BoundFeature
from pipeline.config.models import EngineConfig, EngineName, PipelineConfig
from pipeline.core.errors import ConfigError
from pipeline.dataset.commit import catalog
from pipeline.dataset.commit.folder import check_version
from pipeline.dataset.commit.snapshots import Snapshot
from pipeline.dataset.diff.index import RetryPolicy
from pipeline.run import _binding_cache
from pipeline.run.checks import check_output, check_passthrough
from pipeline.run.fork_server import RunForkServer
from pipeline.run.pipeline import wants_gpu
from pipeline.storage import settings as storage_settings


def prepare(
    config: PipelineConfig,
    new_version: bool = False,
    fork_server: RunForkServer | None = None,
    engine_name: EngineName | None = None,
) -> BoundConfig:
    """Checks everything that can be checked without computing, and binds the features to their checkpoints.

    Args:
        new_version: extract into a version of its own: ``output.version`` where that is given, else the next ``v<n>``.
        fork_server: see `pipeline.run.fork_server`. It checks the features. None: they are checked in this process.
        engine_name: what runs the pipeline (`pipeline.engine`), instead of ``engine.kind``.

    Raises:
        ConfigError: any mistake; or, with ``new_version``, a version that exists already.
    """
    config = configs.here(config)
    storage_settings.use(config.storage)
    if engine_name is not None:
        config = config.model_copy(update={"engine": EngineConfig(kind=engine_name)})
    name, reason = engines.choose(config.engine, config.compute, wants_gpu(config))
    engines.build(name, config.compute).check()
    check_output(config)
    version = _version(config, new_version)
    check_version(config.output.path, version)
    if fork_server is not None and name == "local" and not catalog.is_version(config.output.path, version):
        fork_server.start()  # a first run computes something, whatever is listed
    config = config.model_copy(update={"output": config.output.model_copy(update={"version": version})})
    features = _bind(config) if fork_server is None else fork_server.features()
    if fork_server is not None and name != "local":
        fork_server.close()
    check_passthrough(config, features)
    storage.check_writable(version_root(config), "output.path")
    return BoundConfig(config, features, name, reason, fork_server)


def _bind(config: PipelineConfig) -> tuple[BoundFeature, ...]:
    """Returns the bound features, as an earlier run recorded them or by binding them in this process."""
    started, found = time.time(), _binding_cache.load(config)
    if found is None:
        found = binding.bind(config)
        _binding_cache.store(config, found, started)
    return found


def _version(config: PipelineConfig, new: bool) -> str:
    """Returns the name of the version to extract into."""
    path, named = config.output.path, config.output.version
    if not new:
        return named or catalog.current(path) or "v1"
    if named is not None and named in catalog.versions(path):
        raise ConfigError("output.version", f"there is a version {named!r} already", "another name, or none")
    return named or catalog.next_version(path)


def version_root(config: PipelineConfig) -> str:
    """Returns the folder or URL of the version that a prepared config names."""
    assert config.output.version is not None
    return storage.join(config.output.path, config.output.version)


def forgotten_ids(config: PipelineConfig, base: Snapshot | None) -> tuple[str, ...]:
    """Returns the sha256 of the ids that must not come back.

    Args:
        base: the newest snapshot. None: the first run of a version takes over the forgotten ids of all
            versions.
    """
    return base.forgotten if base else catalog.forgotten(config.output.path)


def retry_policy(bound: BoundConfig, base: Snapshot, everything: bool) -> RetryPolicy:
    """Returns which failed samples are tried again. ``everything``: also those that failed for good."""
    roots = sources.build(bound.config.source).allowed_roots().plain()
    return RetryPolicy(everything, bound.config.failures.max_attempts, forbidden=roots != base.allowed_roots)
