"""What each node of a cluster needs before a run starts on it. The checks run on the node, and raise nothing there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from pipeline import storage
from pipeline.checkpoint.checkpoint import Checkpoint
from pipeline.core.errors import ConfigError, SampleError, describe
from pipeline.core.schema import ROLES
from pipeline.core.system.devices import visible_gpus
from pipeline.core.versions import installed
from pipeline.stages.units import Unit, read_unit, unit_table
from pipeline.storage.roots import AllowedRoots

_SAMPLES = 8
"""Most samples whose files are tried, until one can be read."""
_SHARED = "a folder that all nodes mount at the same path, or a URL such as s3://..."


@dataclass(frozen=True)
class NodeCheck:
    """The needs of a run.

    Args:
        versions: `core.versions.installed` of the driver.
        checkpoints: each checkpoint of the features, with the SHA-256 of its weights.
        heads: file and SHA-256 of each head's weights, by dotted path in the config.
        allowed: where the files of the corpus must lie.
        root: the version's folder, into which nodes write shards.
        uses_gpus: encoders run on the GPUs of nodes that declare some.
        sample_file: a file of the corpus that the driver can read. None: it can read none of the first ones.
    """

    versions: Mapping[str, str]
    checkpoints: tuple[tuple[Checkpoint, str | None], ...]
    heads: Mapping[str, tuple[str, str]]
    allowed: AllowedRoots
    root: str
    uses_gpus: bool
    sample_file: str | None = None

    def with_sample_file(self, unit: Unit) -> NodeCheck:
        """Returns the check with a file of the unit's samples that this process can read."""
        for sample in read_unit(unit_table(unit)).slice(0, _SAMPLES).to_pylist():
            for role in ROLES:
                uri = sample[f"{role}_uri"]
                if uri is not None and _why_unreadable(uri, self.allowed) is None:
                    return replace(self, sample_file=uri)
        return self

    def problem(self, unit: Unit, gpus: float) -> tuple[str, str, str] | None:
        """Returns the first thing that this node lacks, as the arguments of a ``ConfigError``; None: it lacks nothing.

        Args:
            unit: the first unit of the run's plan, which the driver has just written.
            gpus: GPUs that the node declares.
        """
        return _problem_of(
            self._check_versions,
            lambda: self._check_device(gpus),
            lambda: self._check_storage(unit),
            self._check_weights,
        )

    def device_problem(self, gpus: float) -> tuple[str, str, str] | None:
        """`problem`, for the GPUs only."""
        return _problem_of(lambda: self._check_device(gpus))

    def _check_versions(self) -> None:
        here = installed()
        other = {name: here.get(name) for name, version in self.versions.items() if here.get(name) != version}
        other.pop("python", None)  # Ray refuses another minor version
        if other:
            listed = ", ".join(f"{name} {version} ({self.versions[name]} here)" for name, version in other.items())
            raise ConfigError("compute.address", listed, "install the same requirements.lock on all nodes")

    def _check_device(self, gpus: float) -> None:
        if self.uses_gpus and gpus and not visible_gpus():
            raise ConfigError(
                "compute.pools",
                f"{gpus:g} GPUs are declared, and there is no device",
                "start the node without --num-gpus, or set num_gpus: 0 for the pools and device: cpu for the encoders",
            )

    def _check_storage(self, unit: Unit) -> None:
        try:
            read_unit(unit_table(unit))
        except SampleError as error:
            found = f"it does not see what the driver has written to {self.root!r} ({error.message})"
            raise ConfigError("output.path", found, _SHARED) from error
        storage.check_writable(self.root, "output.path")
        if self.sample_file is not None and (reason := _why_unreadable(self.sample_file, self.allowed)) is not None:
            found = f"it cannot read {self.sample_file!r}, which the driver can ({reason})"
            raise ConfigError("source.path", found, _SHARED)

    def _check_weights(self) -> None:
        for checkpoint, sha256 in self.checkpoints:
            if not os.path.isdir(checkpoint.path):
                raise ConfigError(
                    checkpoint.where, f"no folder {checkpoint.path!r}", "put it at that path on all nodes"
                )
            if sha256 is not None and checkpoint.weights_sha256() != sha256:
                raise ConfigError(
                    checkpoint.where,
                    f"{checkpoint.path!r} holds other weights than on the driver",
                    "the same files on all nodes",
                )
        for where, (path, sha256) in self.heads.items():
            if not os.path.isfile(path) or file_sha256(path) != sha256:
                raise ConfigError(where, f"{path!r} is not the file that the driver has", "the same file on all nodes")


def _problem_of(*checks: Callable[[], None]) -> tuple[str, str, str] | None:
    """Returns the arguments of the first ``ConfigError`` that one of ``checks`` raises."""
    try:
        for check in checks:
            check()
    except ConfigError as error:
        return error.where, error.found, error.allowed
    return None


def file_sha256(path: str) -> str:
    """Returns the SHA-256 (hex) of a local file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _why_unreadable(uri: str, allowed: AllowedRoots) -> str | None:
    """Returns why the first byte of a file cannot be read; None if it can."""
    try:
        storage.Blob(uri, allowed).read(1)
    except SampleError as error:
        return error.message
    except Exception as error:  # any backend may raise anything here: credentials, DNS
        return describe(error)
    return None
