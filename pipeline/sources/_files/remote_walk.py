"""Walks a folder of a remote file system and yields the files of each folder below it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any

from pipeline import storage
from pipeline.core.system.daemon_thread import in_thread
from pipeline.sources._files.local_walk import FoundFile
from pipeline.sources._files.location import cannot_list
from pipeline.sources._files.omissions import OmissionCounter, is_hidden
from pipeline.sources._files.selection import Selection
from pipeline.storage.retry import retried

_LISTINGS = 16
"""Folders that are listed at the same time."""
_MAX_WAITING = 100_000
"""Entries of folders that were listed before their turn: with more, no further folder is listed before its turn."""
_KEY_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "memory"}
"""Protocols whose paths are keys: ``.`` and ``..`` are ordinary names there, not this folder and its parent."""


class RemoteWalk:
    """Iterates over the folders below ``root`` and yields the wanted files of each, in order of name.

    The next folders are listed at the same time: a listing is a request and more, and a corpus may have many folders.

    Args:
        fs: the fsspec file system.
        root: the path on it, without a slash at the end.
        where: dotted path of the config key that names the corpus.

    Raises:
        ConfigError: a folder cannot be listed.
    """

    def __init__(self, fs: Any, root: str, selection: Selection, omissions: OmissionCounter, where: str) -> None:
        self._fs, self._root, self._where = fs, root, where
        self._selection, self._omissions = selection, omissions
        protocols = {fs.protocol} if isinstance(fs.protocol, str) else {*fs.protocol}
        self._has_keys = not protocols.isdisjoint(_KEY_STORES)

    def __iter__(self) -> Iterator[list[FoundFile]]:
        todo, ahead = [self._root], dict[str, Future[list[dict[str, Any]]]]()
        most = _LISTINGS if self._has_keys else 1  # other file systems may have one connection for all threads
        while todo:
            waiting = sum(len(one.result()) for one in ahead.values() if one.done() and one.exception() is None)
            for folder in todo[-most:] if waiting < _MAX_WAITING else todo[-1:]:
                if folder not in ahead:
                    ahead[folder] = in_thread(partial(self._list, folder), "tessera-listing")
            folder = todo.pop()
            try:
                entries = ahead.pop(folder).result()
            except Exception as error:  # any backend may raise anything here
                raise cannot_list(self._where, folder, error) from error
            files: list[FoundFile] = []
            folders: list[str] = []
            for entry in sorted(entries, key=lambda entry: str(entry["name"])):
                self._add(entry, folder, files, folders)
            yield files
            todo.extend(reversed(folders))

    def _list(self, folder: str) -> list[dict[str, Any]]:
        """Returns the entries of a folder. Called in a thread."""
        found: list[dict[str, Any]] = retried(partial(self._fs.ls, folder, detail=True, refresh=True))
        self._fs.invalidate_cache(folder)  # each listing is read once, so that caching it would only take memory
        return found

    def _add(self, entry: dict[str, Any], folder: str, files: list[FoundFile], folders: list[str]) -> None:
        """Appends an entry of ``folder`` to ``files`` or ``folders``, or counts it as left out."""
        name = str(entry["name"])
        path = self._relative(name)
        if entry["type"] == "directory":
            if name.rstrip("/") == folder:  # keys such as "a//b": their folder has no name to list it by
                files.extend(self._below_empty_name(folder) if name.startswith(f"{folder}/") else [])
            elif self._selection.enters(path.rstrip("/")) or (
                self._has_keys and self._omissions.enters_to_count(path.rstrip("/"))
            ):
                folders.append(name.rstrip("/"))
            elif is_hidden(path):
                self._omissions.add_hidden(path.rstrip("/"), is_folder=True)
        elif path and not path.endswith("/") and self._selection.wants(path):
            files.append((path, storage.remote_version(entry)))
        elif is_hidden(path):
            self._omissions.add_hidden(path)
        else:
            self._omissions.add_odd(path, entry)

    def _below_empty_name(self, folder: str) -> Iterator[FoundFile]:
        """Yields the files below a folder whose name is empty."""
        for name, entry in retried(partial(self._fs.find, folder, detail=True)).items():
            if not name.startswith(f"{folder}//"):
                continue
            path = self._relative(name)
            if not name.endswith("/") and self._selection.wants(path):
                yield path, storage.remote_version(entry)
            else:
                self._omissions.add_odd(path, entry)

    def _relative(self, name: str) -> str:
        return name.removeprefix(self._root).removeprefix("/")
