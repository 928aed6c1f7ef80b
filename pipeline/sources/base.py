"""Protocol of the sources: lists the samples of a corpus, without reading their files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pyarrow as pa

from pipeline.core.errors import ConfigError
from pipeline.storage.roots import AllowedRoots


class Source(Protocol):
    """A corpus that lists its samples. Constructed as ``Class(config)``; runs on the driver."""

    refused_folders: list[str]
    """Prefixes of the ids of samples that are not listed, since their folder is a link that leads out of the root.
    Filled while `list` runs."""

    left_out: dict[str, int]
    """Reason (``with '.' in their path``) -> number of files that are found and cannot be samples. Filled while `list`
    runs."""

    def check(self, where: str) -> None:
        """Checks the config against the corpus.

        Args:
            where: dotted path of the source in the config, for errors.

        Raises:
            ConfigError: unreachable path, unreadable manifest, missing columns.
        """
        ...

    def passthrough(self) -> pa.Schema:
        """Returns the columns of the corpus that are copied to every row of the dataset."""
        ...

    def allowed_roots(self) -> AllowedRoots:
        """Returns where the files of samples must lie.

        A file elsewhere becomes a failure of kind ``forbidden``, whether the listing or the reader finds it.
        """
        ...

    def lists(self, url: str) -> bool:
        """Returns whether a file at ``url`` would be listed as a sample."""
        ...

    def list(self) -> Iterator[pa.Table]:
        """Yields tables of schema ``LISTING`` + ``passthrough()``, each ordered by sample_id.

        The listing may contain an id twice. The caller, which compares all ids, raises `duplicate_id_error` then.
        """
        ...

    def duplicate_id_error(self, sample_id: str) -> ConfigError:
        """Returns the error for an id that is listed twice, with both places."""
        ...
