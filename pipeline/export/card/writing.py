"""Writes the card of a dataset: README.md and croissant.json."""

from __future__ import annotations

import json

from pipeline import dataset as datasets
from pipeline.core.errors import ConfigError
from pipeline.dataset.commit.folder import DatasetFolder
from pipeline.export.card import croissant, readme
from pipeline.export.card.facts import Facts, dataset_folder
from pipeline.export.destination import refuse_inside
from pipeline.export.results import CardResult


def write_card(
    path: str,
    out: str | None = None,
    version: str | None = None,
    snapshot: int | str | None = None,
    overwrite: bool = False,
) -> CardResult:
    """Writes README.md and croissant.json, which describe a snapshot. No file of the dataset is changed.

    Both name the files of the snapshot relative to the folder that holds the version.

    Args:
        path: a dataset; a local path or any fsspec URL.
        out: where they are written; None: into the folder that holds the version.
        version: None: the current one.
        snapshot: number of a snapshot, or name of a pin; None: the newest.
        overwrite: replace files of these names.

    Raises:
        ConfigError: no such dataset, version or snapshot; the files of the snapshot hold deleted rows, or have moved;
            there are files of these names; a library is not installed.
        StorageError: the folder cannot be written.
    """
    data = datasets.open(path, version, snapshot)
    folder = DatasetFolder((dataset_folder(data, path) if out is None else out).rstrip("/") or "/")
    refuse_inside(folder.root, [data.root], "--out")
    names = (readme.NAME, croissant.NAME)
    if not overwrite:
        for name in names:
            if folder.exists(name):
                raise _exists(folder.url(name))
    facts = Facts.of(data)
    page, page_warnings = readme.render(facts)
    document, document_warnings = croissant.render(facts)
    contents = page.encode(), json.dumps(document, indent=1).encode()
    try:
        for name, content in zip(names, contents, strict=True):
            if overwrite:
                folder.publish(name, content)
            elif not folder.publish_new(name, content):
                raise _exists(folder.url(name))
    except NotImplementedError as error:  # fsspec: a file system that cannot write
        raise ConfigError("--out", f"{folder.root!r} cannot be written", "give --out FOLDER") from error
    return CardResult(
        dataset=path,
        version=facts.version,
        snapshot=data.snapshot,
        created=facts.created,
        run_id=data.run_id,
        output=folder.root,
        files=names,
        rows=facts.rows,
        shards=len(facts.shards),
        warnings=(*page_warnings, *document_warnings),
    )


def _exists(url: str) -> ConfigError:
    return ConfigError("--out", f"{url!r} is there already", "--overwrite to replace it, or another folder")
