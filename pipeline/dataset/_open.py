"""Opens a dataset: finds the version and the snapshot."""

from __future__ import annotations

from pipeline import storage
from pipeline.core.errors import ConfigError, describe
from pipeline.dataset.commit import catalog, pins, snapshots
from pipeline.dataset.reader import Dataset


def open(path: str, version: str | None = None, snapshot: int | str | None = None) -> Dataset:
    """Opens the dataset at ``path``.

    Args:
        path: ``output.path`` of the config, or the folder of one version; a local path or any fsspec URL.
        version: None: the current one.
        snapshot: number of a snapshot, or name of a pin (`tessera snapshots --pin NAME`); None: the newest.

    Raises:
        ConfigError: no dataset at ``path``, no such version, snapshot or pin, or a newer contract than this reader's.
    """
    try:
        root = path.rstrip("/") if not path.endswith("://") else path
        storage.check_answers(root, "path")
        found = snapshots.numbers(root)
        if found and version not in (None, root.rsplit("/", 1)[-1]):
            raise ConfigError("version", f"{path!r} is the folder of one version, not {version!r}", "leave it out")
        if not found:
            root = storage.join(root, catalog.resolve_version(root, version, or_version=True))
            found = snapshots.numbers(root)
        return Dataset(root, snapshots.read(root, pins.resolve(root, snapshot, found)))
    except ConfigError:
        raise
    except Exception as error:  # a storage backend may raise any type: DNS, credentials, TLS
        advice = storage.advice(error.__cause__ or error) or "give a dataset's folder"
        raise ConfigError("path", f"cannot read {path!r} ({describe(error)})", advice) from error
