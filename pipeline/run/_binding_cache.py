"""Keeps what binding found in the user's cache folder, so that a run with nothing to compute imports no large library.

Binding imports torch and the models' classes, which takes four seconds of a core. Its result depends on the config, on
the files of the checkpoints and on the installed versions. A record is used only if all of them are as they were.
"""

from __future__ import annotations

import os
import pickle
import stat
import tempfile
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline import storage
from pipeline.checkpoint import fetched
from pipeline.config import digest
from pipeline.config.features import BoundFeature
from pipeline.config.models import PipelineConfig
from pipeline.core.system import private_folder
from pipeline.core.system.devices import visible_gpus
from pipeline.core.versions import installed

_FORMAT = 1
_NOT_READ = ("source", "output", "failures", "engine", "metrics", "nightly", "openlineage")
"""Sections of a config that binding does not read."""
_SETTLED_S = 2.0
"""Age of a file from which on a later change alters its times. Files are not recorded before."""
_MAX_FILES, _MAX_BYTES, _MAX_RECORDS = 10_000, 16 << 20, 100

_ALSO = ("tokenizers", "safetensors", "huggingface_hub", "pydantic")
"""Packages that binding uses, and that a dataset does not record."""

FileState = tuple[str, int, int, int, int]
"""Path, size, mtime and ctime in nanoseconds, inode."""


def load(config: PipelineConfig) -> tuple[BoundFeature, ...] | None:
    """Returns the features of ``config`` as `store` recorded them. None: there is no record, or something has changed.

    Args:
        config: with absolute paths (`pipeline.config.here`).
    """
    folder = private_folder.of_user_cache("bindings")
    if folder is None:
        return None
    with suppress(Exception):  # whatever is wrong with a record: the features are bound again
        fd = os.open(os.path.join(folder, _key(config)), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with os.fdopen(fd, "rb") as file:
            found = os.fstat(fd)
            if found.st_uid != os.geteuid() or not stat.S_ISREG(found.st_mode) or found.st_size > _MAX_BYTES:
                return None
            states, features = pickle.load(file)
        if states == _file_states(_folders(features)):
            assert all(isinstance(feature, BoundFeature) for feature in features)
            return tuple(features)
    return None


def store(config: PipelineConfig, features: tuple[BoundFeature, ...], started: float) -> None:
    """Records the features of ``config``, unless a file of theirs is remote or was changed just now.

    Args:
        config: with absolute paths (`pipeline.config.here`).
        started: when binding began, in seconds since the epoch.
    """
    folder = private_folder.of_user_cache("bindings")
    if folder is None:
        return
    path = None
    try:
        states = _file_states(_folders(features))
        newest_s = max((max(mtime, ctime) / 1e9 for _, _, mtime, ctime, _ in states), default=0.0)
        if newest_s > started - _SETTLED_S:
            return
        handle, path = tempfile.mkstemp(dir=folder)
        with os.fdopen(handle, "wb") as file:
            file.write(pickle.dumps((states, features), 5))
        os.replace(path, os.path.join(folder, _key(config)))
        _drop_oldest(folder)
    except Exception:  # a full disk, a file that has just gone: the next run binds again
        if path is not None:
            with suppress(OSError):
                os.unlink(path)


def _key(config: PipelineConfig) -> str:
    """Returns the name of the record of a config on this machine."""
    read = {key: value for key, value in config.model_dump(mode="json").items() if key not in _NOT_READ}
    machine = [os.getcwd(), visible_gpus(), config.compute.cluster()[0]]
    return digest([_FORMAT, read, machine, installed(), [version(name) for name in _ALSO], _own_code()])


def _own_code() -> list[Any]:
    """Returns the number and the newest change of Tessera's own files: an editable installation has one version."""
    root = Path(__file__).parents[1]
    times = [path.stat().st_mtime_ns for path in root.rglob("*.py")]
    return [str(root), len(times), max(times)]


def _folders(features: tuple[BoundFeature, ...]) -> list[str]:
    """Returns the folders and files that binding read. Raises ``ValueError`` if a tokenizer or a head is not on this
    machine, or if a checkpoint that a URL names has changed."""
    found = set[str]()
    for feature in features:
        if feature.checkpoint is not None:
            found.add(feature.checkpoint.path)
            if fetched.is_remote(url := feature.checkpoint.name):
                copy = fetched.name_of_copy(fetched.files_of(url, feature.checkpoint.where))
                if copy != os.path.basename(feature.checkpoint.path):
                    raise ValueError(f"{url!r} has changed")
        tokenizer, head = feature.config.tokenizer, feature.config.head
        for named in (getattr(tokenizer, "checkpoint", None), getattr(head, "weights", None)):
            if named is not None:
                if not os.path.exists(path := storage.absolute(named)):
                    raise ValueError(f"{named!r} is not on this machine")
                found.add(path)
    return sorted(found)


def _file_states(places: list[str]) -> list[FileState]:
    """Returns the states of files, and of all files in folders. Raises ``OSError``; ``ValueError``: too many."""
    states: list[FileState] = []
    for place in places:
        paths = [place]
        if os.path.isdir(place):
            paths = [os.path.join(folder, name) for folder, _, names in os.walk(place) for name in names]
        for path in paths:
            found = os.stat(path)
            states.append((path, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino))
        if len(states) > _MAX_FILES:
            raise ValueError(f"{place} holds more than {_MAX_FILES} files")
    return sorted(states)


def _drop_oldest(folder: str) -> None:
    """Removes the oldest records if there are many."""
    records = sorted(Path(folder).iterdir(), key=lambda path: path.stat().st_mtime)
    for path in records[:-_MAX_RECORDS]:
        path.unlink(missing_ok=True)
