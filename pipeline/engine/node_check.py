"""What each node of a cluster needs before a run starts on it. The checks run on the node, and raise nothing there."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyarrow as pa

from pipeline import storage
from pipeline.checkpoint.checkpoint import Checkpoint, on_this_machine
from pipeline.checkpoint.digests import file_sha256
from pipeline.checkpoint.fetched import is_remote, path_of_file
from pipeline.core.errors import ConfigError, SampleError, describe
from pipeline.core.system.devices import has_gpu
from pipeline.core.versions import installed
from pipeline.storage import settings as storage_settings
from pipeline.storage.roots import AllowedRoots
from pipeline.storage.settings import StorageConfig

_SAMPLES = 8
"""Most samples whose files are tried, until one can be read."""
_SHARED = "a folder that all nodes mount at the same path, or a URL such as s3://..."
Problem = tuple[str, str, str]
"""The arguments of a ``ConfigError``."""


@dataclass(frozen=True)
class NodeCheck:
    """The needs of a run.

    Args:
        versions: the libraries of the driver that compute values, as `core.versions.installed` returns them.
        checkpoints: those of the encoders and tokenizers.
        heads: the weights of heads: dotted path in the config -> file.
        roles: the roles of the files that the features read.
        allowed: where the files of the corpus must lie.
        storage: how storages are reached.
        root: the version's folder, into which nodes write shards.
        uses_gpus: encoders run on the GPUs of nodes that declare some.
        encodes_on_cpus: some encoders need no GPU, so that they may run on any node.
    """

    versions: Mapping[str, str]
    checkpoints: tuple[Checkpoint, ...]
    heads: Mapping[str, str]
    roles: tuple[str, ...]
    allowed: AllowedRoots
    storage: StorageConfig
    root: str
    uses_gpus: bool
    encodes_on_cpus: bool = True

    def on_driver(self, samples: pa.Table, written: str) -> NodeTask:
        """Returns the task for all nodes: this check, with what the driver finds.

        Args:
            samples: samples of the corpus.
            written: URL of a file that the driver has just written into ``root``.
        """
        return NodeTask(
            self,
            written,
            tuple((one.sampled_sha256(False), one.sampled_sha256(True)) for one in self.checkpoints),
            {name: file_sha256(path_of_file(name, where)) for where, name in self.heads.items()},
            self._readable_file(samples),
            sum(one.weights_bytes() for one in self.checkpoints if one.revision or is_remote(one.name)),
        )

    def device_problem(self, gpus: float) -> Problem | None:
        """Returns what is wrong with the GPUs that this machine declares; None: nothing."""
        if not (self.uses_gpus and gpus) or has_gpu():
            return None
        advice = "start the node without --num-gpus, or set compute.missing_gpus: use_cpu if no node has a device"
        return "compute.pools", f"{gpus:g} GPUs are declared, and there is no device", advice

    def _readable_file(self, samples: pa.Table) -> str | None:
        """Returns a file of the first samples that this process can read."""
        for sample in samples.slice(0, _SAMPLES).to_pylist():
            for role in self.roles:
                uri = sample[f"{role}_uri"]
                if uri is not None and _why_unreadable(uri, self.allowed) is None:
                    return str(uri)
        return None


@dataclass(frozen=True)
class NodeTask:
    """A `NodeCheck` as it is sent to the nodes.

    Args:
        written: a file in the output that the driver has written.
        digests: `Checkpoint.sampled_sha256` of each checkpoint, without and with its weights.
        heads: SHA-256 of the files of heads.
        sample_file: a file of the corpus that the driver can read. None: none of the first ones.
        fetched_bytes: size of the checkpoints that a node may have to fetch.
    """

    check: NodeCheck
    written: str
    digests: tuple[tuple[str, str], ...]
    heads: Mapping[str, str]
    sample_file: str | None
    fetched_bytes: int = 0

    def problem(self, gpus: float) -> Problem | None:
        """Returns the first thing that this node lacks; None: it lacks nothing.

        Args:
            gpus: GPUs that the node declares.
        """
        storage_settings.use_exactly(self.check.storage)
        if (problem := self.check.device_problem(gpus)) is not None:
            return problem
        encodes = gpus > 0 or not self.check.uses_gpus or self.check.encodes_on_cpus
        steps: dict[str, Callable[[], None]] = {
            "compute.address": self._check_versions,
            "output.path": self._check_output,
            "source.path": self._check_corpus,
            "features": lambda: self._check_checkpoints(encodes),
        }
        for where, step in steps.items():
            try:
                step()
            except ConfigError as error:
                return error.where, error.found, error.allowed
            except Exception as error:  # such as a file that this user may not read
                return where, describe(error), "the same on all nodes as on the driver"
        return None

    def _check_versions(self) -> None:
        here = installed()
        other = [
            f"{name} {here.get(name)} ({version} on the driver)"
            for name, version in self.check.versions.items()
            if _public(here.get(name, "")) != _public(version)
        ]
        if other:
            raise ConfigError("compute.address", ", ".join(other), "install the same requirements.lock on all nodes")

    def _check_output(self) -> None:
        try:
            storage.Blob(self.written).read(1)
        except SampleError as error:
            found = f"it does not see what the driver has written to {self.check.root!r} ({error.message})"
            raise ConfigError("output.path", found, _what_to_do(error)) from error
        storage.check_writable(self.check.root, "output.path")

    def _check_corpus(self) -> None:
        if self.sample_file is not None:
            error = _why_unreadable(self.sample_file, self.check.allowed)
            if error is not None:
                reason = error.message if isinstance(error, SampleError) else describe(error)
                found = f"it cannot read {self.sample_file!r}, which the driver can ({reason})"
                raise ConfigError("source.path", found, _what_to_do(error))

    def _check_checkpoints(self, encodes: bool) -> None:
        """Compares the files of tokenizers and processors, and, if the node encodes, weights and heads."""
        for checkpoint, digests in zip(self.check.checkpoints, self.digests, strict=True):
            here = on_this_machine(checkpoint, encodes)
            if here.sampled_sha256(encodes) != digests[encodes]:
                found = f"{here.path!r} holds other files than on the driver"
                raise ConfigError(checkpoint.where, found, "the same files on all nodes")
        for where, path in self.check.heads.items() if encodes else ():
            copy = path_of_file(path, where)
            if not os.path.isfile(copy) or file_sha256(copy) != self.heads[path]:
                raise ConfigError(where, f"{path!r} is not the file that the driver has", "the same file on all nodes")


def _public(version: str) -> str:
    """Returns a version without its build: ``2.11.0`` of ``2.11.0+cpu``."""
    return version.partition("+")[0]


def _why_unreadable(uri: str, allowed: AllowedRoots) -> Exception | None:
    """Returns the error with which the first byte of a file cannot be read; None if it can."""
    try:
        storage.Blob(uri, allowed).read(1)
    except Exception as error:  # any backend may raise anything here: credentials, DNS
        return error
    return None


def _what_to_do(error: Exception) -> str:
    """Returns what to do on a node that cannot read what the driver can."""
    advice = storage.advice(error.__cause__ or error)
    return _SHARED if advice is None else f"in the environment in which Ray was started there: {advice}"
