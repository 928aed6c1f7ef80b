"""From a config to one whose output, features and cluster were checked."""

from __future__ import annotations

from pipeline import config as configs
from pipeline import engine as engines
from pipeline import sources, storage
from pipeline.config import features as binding
from pipeline.config.bound import BoundConfig
from pipeline.config.models import PipelineConfig
from pipeline.core.errors import ConfigError
from pipeline.dataset.commit import catalog, snapshots
from pipeline.dataset.commit.folder import check_version
from pipeline.dataset.commit.snapshots import Snapshot
from pipeline.dataset.diff.index import RetryPolicy
from pipeline.engine import EngineName
from pipeline.run.checks import _check_output, _check_passthrough
from pipeline.sandbox import ForkServer


def prepare(
    config: PipelineConfig,
    new_version: bool = False,
    template: ForkServer | None = None,
    engine_name: EngineName = "ray",
) -> BoundConfig:
    """Check everything that can be checked without computing.

    Args:
        new_version: extract into a version of its own: ``output.version`` where that is given, else the next ``v<n>``.
        template: see `pipeline.run.fork_server`. While it checks the features, the engine starts.
        engine_name: what will run the pipeline (`pipeline.engine`).

    Raises:
        ConfigError: any mistake; or a version that there is already.
    """
    config = configs.here(config)
    engine = engines.build(engine_name, config.compute)
    engine.check()
    _check_output(config)
    version = _version(config, new_version)
    check_version(config.output.path, version)
    config = config.model_copy(update={"output": config.output.model_copy(update={"version": version})})
    if template is None:
        features, address = binding.bind(config), None
    else:
        if snapshots.newest(_root(config)) is None:  # later nights may find nothing to compute
            engine.start_early()
        features, address = template.prepared(), template.address
    _check_passthrough(config, features)
    storage.check_writable(_root(config), "output.path")
    return BoundConfig(config, features, address)


def _version(config: PipelineConfig, new: bool) -> str:
    path, named = config.output.path, config.output.version
    if not new:
        return named or catalog.current(path) or "v1"
    if named is not None and named in catalog.versions(path):
        raise ConfigError("output.version", f"there is a version {named!r} already", "another name, or none")
    return named or catalog.next_version(path)


def _root(config: PipelineConfig) -> str:
    assert config.output.version is not None
    return storage.join(config.output.path, config.output.version)


def _barred(config: PipelineConfig, base: Snapshot | None) -> tuple[str, ...]:
    """sha256 of the ids that must not come back. A version's first run takes over what the others bar."""
    return base.forgotten if base else catalog.forgotten(config.output.path)


def _retry(prepared: BoundConfig, base: Snapshot, everything: bool) -> RetryPolicy:
    roots = sources.build(prepared.config.source).allowed_roots().plain()
    return RetryPolicy(everything, prepared.config.failures.max_attempts, forbidden=roots != base.allowed_roots)
