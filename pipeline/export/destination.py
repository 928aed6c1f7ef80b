"""Where an export is written: a new local folder, or an empty folder of an object store."""

from __future__ import annotations

import os
import secrets
import tempfile
from contextlib import ExitStack
from typing import Any

from pipeline import storage
from pipeline.core.errors import ConfigError, TesseraError, describe
from pipeline.dataset import Dataset
from pipeline.export import _record
from pipeline.export._local_folder import LocalFolder, check_new
from pipeline.storage import settings


class Destination:
    """The folder of an export. A context manager: a local folder gets its name in `finish`, and is removed on an error.

    An object store cannot rename folders. There, a record says that the export is not complete until `finish`; on an
    error nothing is deleted.

    Args:
        out: a path or URL, as the user named it.
        dataset: the snapshot that is exported.
        source: the path of the dataset, as the user named it.

    Raises:
        ConfigError: there is something at ``out``, or it is inside of the dataset.
    """

    def __init__(self, out: str, dataset: Dataset, source: str) -> None:
        check_url(out)
        refuse_inside(out, [source, dataset.root], "OUT")
        self.out, self.dataset = out, dataset
        self.is_local = storage.is_local(out)
        self._token = secrets.token_hex(8)
        self._stack = ExitStack()
        self._folder: LocalFolder | None = None
        self.url = out.rstrip("/")
        """Where files are written."""
        self.scratch = ""
        """A local folder for temporary files."""
        if self.is_local:
            check_new(_real(out), out)
            self._folder = LocalFolder(_real(out), out)
        else:
            _check_empty(self.url)

    def __enter__(self) -> Destination:
        if self._folder is not None:
            self._stack.enter_context(self._folder)
            self.url, self.scratch = self._folder.content, self._folder.scratch
        else:
            self.scratch = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="tessera-export-"))
        return self

    def begin(self, format: str, columns: list[str]) -> None:
        """Reserves the folder on an object store. Raises ``ConfigError`` if another export has it, or if it cannot be
        written."""
        if self.is_local:
            return
        record = _record.content(self.dataset, format, columns, self._token, complete=False)
        try:
            is_new = storage.publish_new(storage.join(self.url, _record.NAME), record)
        except Exception as error:  # any backend may raise anything here: permissions, quotas, DNS, credentials
            cause = error.__cause__ or error
            found = f"cannot write to {self.out!r} ({describe(cause)})"
            raise ConfigError("OUT", found, storage.advice(cause) or "a folder that can be written") from error
        if not is_new:
            raise ConfigError("OUT", f"another export writes to {self.out!r}", "another folder")

    def size(self) -> tuple[int, int]:
        """Returns the number of files and their bytes, without the record."""
        fs, path = storage.split(self.url)
        fs.invalidate_cache(path)
        found = {name: info for name, info in fs.find(path, detail=True).items() if not name.endswith(_record.NAME)}
        return len(found), sum(info["size"] or 0 for info in found.values())

    def finish(self, format: str, columns: list[str]) -> None:
        """Records that the export is complete. A local folder gets its name."""
        record = _record.content(self.dataset, format, columns, self._token, complete=True)
        storage.publish(storage.join(self.url, _record.NAME), record)
        if self._folder is not None:
            self._folder.publish()

    def storage_options(self) -> dict[str, Any]:
        """Returns the arguments of the file system of fsspec."""
        return settings.options(self.url)

    def __exit__(self, *error: object) -> None:
        self._stack.close()


def check_url(out: str) -> None:
    """Raises ``ConfigError`` for a URL that no file system takes, or that names several."""
    if not out or "::" in out:
        raise ConfigError("OUT", f"found {out!r}", "a path or URL without '::'")
    try:
        storage.split(out)
    except (ImportError, ValueError) as error:  # fsspec: a library to install, or an unknown scheme
        raise ConfigError("OUT", f"{out!r} cannot be opened ({describe(error)})", "another folder or URL") from error


def refuse_inside(out: str, folders: list[str], where: str) -> None:
    """Raises ``ConfigError`` if ``out`` is one of ``folders``, or inside of one.

    Readers of Parquet would find the files of an export among those of the dataset.

    Args:
        where: the name of the option or argument in the error.
    """
    for folder in folders:
        if storage.is_local(out) != storage.is_local(folder):
            continue
        place, above = (_real(one) if storage.is_local(one) else one.rstrip("/") for one in (out, folder))
        if place == above or place.startswith(f"{above}/"):
            raise ConfigError(where, f"{out!r} is in the dataset", "a folder outside of it")


def _real(path: str) -> str:
    """Returns a local path without links."""
    return os.path.realpath(storage.split(path)[1])


def _check_empty(url: str) -> None:
    """Raises ``ConfigError`` unless there is nothing below a URL."""
    try:
        storage.check_answers(url, "OUT")
        own = storage.split(url)[1].rstrip("/")
        found = [one for one in storage.entries(url) if one["name"].rstrip("/") != own]  # S3: a marker of the folder
        is_file = storage.is_file(url)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        found, is_file = [], True
    except TesseraError as error:
        raise ConfigError("OUT", f"cannot list {url!r} ({error})", "a folder that can be read and written") from error
    if is_file:
        raise ConfigError("OUT", f"{url!r} is there already and is no folder", "a new or an empty folder")
    if found and _record.is_interrupted(url):
        raise ConfigError(
            "OUT", f"{url!r} holds an export that was interrupted or is being written", "remove it, or another folder"
        )
    if found:
        raise ConfigError("OUT", f"{url!r} is not empty", "a new or an empty folder")
